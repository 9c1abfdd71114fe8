"""Refusals are recorded with what was tried, and no more of them than the log bears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from django.utils import timezone

from governance.audit import refusals
from governance.audit.models import AuditEvent, AuditPersonKey
from governance.audit.personal import opened_body
from governance.audit.refusals import (
    ACTORS_MAX,
    ANONYMOUS_BURST,
    BURST,
    RefusalRate,
    attempted,
    refusal_record,
)
from governance.audit.services import Attempt, Subject
from governance.errors import NotPermitted, WrongState
from governance.people.models import Person
from governance.people.services import department_create
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import ANONYMOUS, Principal, RequestContext, request_context
from tests.unit.audit_support import recorded, recorded_all

pytestmark = pytest.mark.django_db


def refusal(actor: Principal, said: str = "No.") -> NotPermitted:
    return NotPermitted(said, attempt=Attempt(actor, "key:revoke", Subject("key", "7", "ci")))


def silent_for(rate: RefusalRate, seconds: float) -> None:
    """As if so much time had passed."""
    for bucket in rate._buckets.values():
        bucket.at -= seconds


@pytest.mark.parametrize(("who", "burst"), [("person", BURST), ("nobody", ANONYMOUS_BURST)])
def test_beyond_the_burst_refusals_are_counted_and_the_next_one_says_how_many(
    actor: Callable[..., Principal], who: str, burst: int
) -> None:
    rate = RefusalRate()
    somebody = actor("Ada") if who == "person" else ANONYMOUS
    told = [rate.admit(refusal(somebody), somebody) for _ in range(burst)]
    assert all(len(each) == 1 and each[0][1] == 0 for each in told)
    # Room comes back with time; none has passed for the count.
    rate._buckets[f"{somebody.kind}:{somebody.id}"].room = 0
    silent_for(rate, -1000)
    assert [rate.admit(refusal(somebody), somebody) for _ in range(7)] == [[]] * 7
    silent_for(rate, 2000)
    ((_, others),) = rate.admit(refusal(somebody), somebody)
    assert others == 7


def test_one_who_stops_is_told_of_with_the_next_refusal_of_anybody(
    actor: Callable[..., Principal],
) -> None:
    rate = RefusalRate()
    ada, ben = actor("Ada"), actor("Ben")
    rate.admit(refusal(ada), ada)
    rate._buckets[f"person:{ada.id}"].room = 0
    silent_for(rate, -1000)
    for number in range(5):
        assert rate.admit(refusal(ada, f"No {number}."), ada) == []
    silent_for(rate, 2000)
    own, overdue = rate.admit(refusal(ben), ben)
    assert own[1] == 0
    assert (overdue[0].message, overdue[1]) == ("No 4.", 4)
    assert len(rate.admit(refusal(ben), ben)) == 1


def test_actors_that_are_kept_in_mind_are_bounded(actor: Callable[..., Principal]) -> None:
    rate = RefusalRate()
    ada = actor("Ada")
    for number in range(ACTORS_MAX + 50):
        rate.admit(refusal(ada), replace(ada, id=str(number)))
    assert len(rate._buckets) == ACTORS_MAX


def test_what_was_let_through_in_this_request_is_what_is_refused(
    actor: Callable[..., Principal],
) -> None:
    ada = actor("Ada", "admin")
    where = {"surface": "api", "method": "POST", "path": "/api/v1/departments"}
    department_create(actor=ada, slug="clinical", name="Clinical")
    # Of another request, or of none: the address.
    assert attempted(ada, **where).subject == Subject("address", *[where["path"]] * 2)
    token = request_context.set(RequestContext("req-1"))
    try:
        with pytest.raises(WrongState) as caught:
            department_create(actor=ada, slug="clinical", name="Clinical")
        # A decision about an action that only reads is not reported.
        authorize(actor=ada, action=Action.MODEL_VIEW, resource=Resource("model", name="m"))
        tried = attempted(ada, **where)
        assert tried.decision is not None
        assert (tried.action, tried.decision.policy_version) == ("department:create", 1)
        assert attempted(replace(ada, id="other"), **where).action == "api:post"
        caught.value.attempt = tried
        refusal_record(caught.value)
    finally:
        request_context.reset(token)
    event = recorded(outcome="denied")
    assert (event.action, event.subject_name) == ("department:create", "clinical")
    assert (event.request_id, event.reason) == ("req-1", caught.value.message)
    refusal_record(NotPermitted("Of nobody."))
    assert AuditEvent.objects.filter(outcome="denied").count() == 1


def test_a_refusal_about_somebody_else_does_not_keep_the_name_of_who_was_refused(
    actor: Callable[..., Principal], person: Callable[..., Person]
) -> None:
    ada, ben = actor("Ada Zwetschge"), person("Ben Quitte")
    about_ben = Attempt(ada, "role:grant", Subject("person", str(ben.pk), ben.name))
    refusal_record(NotPermitted("Ada Zwetschge may not do this.", attempt=about_ben))
    assert recorded(outcome="denied").reason == f"person {ada.id} may not do this."
    # About themselves, their own key keeps it.
    refusal_record(refusal(ada, "Ada Zwetschge may not do that."))
    said = [event.reason for event in recorded_all(outcome="denied")]
    assert said[1] == "Ada Zwetschge may not do that."
    AuditPersonKey.objects.filter(person_id=ada.person_id).update(
        key=None, erased_at=timezone.now()
    )
    told = "".join(f"{e.actor_name} {e.reason}" for e in recorded_all(outcome="denied"))
    assert "Zwetschge" not in told


def test_one_that_is_told_of_later_keeps_where_and_when_it_was_refused_and_no_erased_name(
    actor: Callable[..., Principal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another's request writes it: neither its number nor the address that it came from."""
    rate = RefusalRate()
    monkeypatch.setattr(refusals, "_rate", rate)
    ada, ben = actor("Ada Zwetschge"), actor("Ben")

    def refuse(who: Principal, request: RequestContext) -> None:
        token = request_context.set(request)
        try:
            refusal_record(refusal(who, f"{who.name} may not do this."))
        finally:
            request_context.reset(token)

    refuse(ada, RequestContext("req-1", "192.0.2.1"))
    rate._buckets[f"person:{ada.id}"].room = 0
    silent_for(rate, -1000)
    refuse(ada, RequestContext("req-2", "192.0.2.2"))
    silent_for(rate, 2000)
    refuse(ben, RequestContext("req-3", "192.0.2.3"))
    later = recorded(request_id="req-2")
    assert (later.actor_id, opened_body(later)["client_address"]) == (ada.id, "192.0.2.2")
    assert recorded(request_id="req-3").actor_id == ben.id
    assert later.occurred_at < recorded(request_id="req-3").occurred_at

    rate._buckets[f"person:{ada.id}"].room = 0
    silent_for(rate, -1000)
    refuse(ada, RequestContext("req-4", "192.0.2.4"))
    AuditPersonKey.objects.filter(person_id=ada.person_id).update(
        key=None, erased_at=timezone.now()
    )
    silent_for(rate, 2000)
    refuse(ben, RequestContext("req-5", "192.0.2.5"))
    written = bytes(AuditEvent.objects.get(request_id="req-4").canonical)
    assert b"Zwetschge" not in written
    assert b"192.0.2.4" not in written
