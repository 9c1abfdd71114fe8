"""Waivers: asked for by one person, granted by a second one, and what they excuse for how long."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import DomainError, InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Person, RoleAssignment
from governance.people.selectors import principal_for_person
from governance.principals import Principal
from governance.reviews.checklist import ChecklistEntry, CheckOutcome, checklist_attest
from governance.reviews.models import Review, ReviewState
from governance.reviews.selectors import review_standing
from governance.reviews.services import (
    review_answer,
    review_decide,
)
from governance.reviews.waivers.models import Waiver, WaiverState
from governance.reviews.waivers.selectors import waived_until
from governance.reviews.waivers.services import (
    waiver_decide,
    waiver_request,
    waiver_revoke,
    waiver_withdraw,
    waivers_expire_due,
)
from governance.reviews.waivers.states import (
    ALLOWED_TRANSITIONS,
    waiver_locked,
    waiver_set_state,
)
from tests.people import set_up_alone
from tests.unit.audit_support import recorded

pytestmark = pytest.mark.sweep

DIGEST, OTHER = "a" * 64, "b" * 64
CHECKLIST = (
    ChecklistEntry("digest", "Bytes", outcome=CheckOutcome.PASSED, waivable=False),
    ChecklistEntry(
        "intake", "Intake", outcome=CheckOutcome.FAILED, note="No intake.", waivable=False
    ),
    ChecklistEntry("gates", "Gates", outcome=CheckOutcome.FAILED, note="accuracy failed with 0.7"),
    ChecklistEntry("purpose", "Purpose"),
)


def soon(**span: float) -> datetime:
    return timezone.now() + timedelta(**(span or {"days": 30}))


def ask(actor: Principal, review: Review, code: str = "gates", **changes: Any) -> Waiver:
    asked: dict[str, Any] = {"reason": "Measured again next week.", "expires_at": soon()}
    return waiver_request(actor=actor, review_id=review.pk, code=code, **(asked | changes))


def decide(actor: Principal, waiver: Waiver, verdict: str = "granted") -> Waiver:
    return waiver_decide(actor=actor, waiver_id=waiver.pk, verdict=verdict, reason="It may wait.")


def state_of(review: Review, code: str) -> str:
    return review.checklist.get(code=code).state


def overdue(waiver: Waiver) -> None:
    """As if its time were over: past the triggers that keep a waiver's terms, as no service can."""
    past = timezone.now() - timedelta(days=2)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        Waiver.objects.filter(pk=waiver.pk).update(
            asked_at=past, expires_at=past + timedelta(days=1)
        )
        cursor.execute("SET LOCAL session_replication_role = origin")


@pytest.fixture
def review(opened: Callable[..., Review]) -> Review:
    return opened(checklist=CHECKLIST)


@pytest.fixture
def lead(actor: Callable[..., Principal]) -> Principal:
    return actor("Lea", "lead@clinical")


_PATHS = {
    WaiverState.REQUESTED: (),
    WaiverState.GRANTED: (WaiverState.GRANTED,),
    WaiverState.REFUSED: (WaiverState.REFUSED,),
    WaiverState.WITHDRAWN: (WaiverState.WITHDRAWN,),
    WaiverState.REVOKED: (WaiverState.GRANTED, WaiverState.REVOKED),
    WaiverState.EXPIRED: (WaiverState.GRANTED, WaiverState.EXPIRED),
}


@pytest.mark.parametrize(
    ("before", "after"), list(itertools.product(WaiverState, WaiverState)), ids=str
)
def test_every_pair_of_states_moves_or_is_refused_by_the_service_and_by_the_database(
    review: Review,
    submitter: Principal,
    compliance: Principal,
    before: WaiverState,
    after: WaiverState,
) -> None:
    pk = ask(submitter, review).pk

    def move(state: WaiverState) -> None:
        with transaction.atomic():
            waiver_set_state(
                actor=compliance, waiver=waiver_locked(pk), state=state, reason="a test"
            )

    for step in _PATHS[before]:
        move(step)
    by_row = Waiver.objects.filter(pk=pk)
    if after in ALLOWED_TRANSITIONS[before]:
        move(after)
        assert by_row.get().state == after
        assert AuditEvent.objects.filter(action=f"waiver:{after.value}").count() == 1
        return
    sentence = f"is {before.label.lower()}; it cannot become {after.label.lower()}"
    with pytest.raises(WrongState, match=sentence):
        move(after)
    if before not in (after, WaiverState.REQUESTED, WaiverState.WITHDRAWN) and after in (
        WaiverState.REQUESTED,
        WaiverState.GRANTED,
        WaiverState.REFUSED,
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            by_row.update(state=after)
    assert by_row.get().state == before


def test_a_granted_waiver_excuses_its_item_and_lets_the_review_be_approved(
    opened: Callable[..., Review], submitter: Principal, compliance: Principal, risk: Principal
) -> None:
    review = opened(checklist=[CHECKLIST[0], CHECKLIST[2]])
    waiver = ask(submitter, review)
    assert (waiver.excused, waiver.digest, waiver.round) == ("accuracy failed with 0.7", DIGEST, 1)
    assert [item.code for item in review_standing(review).blocking] == ["gates"]
    decide(compliance, waiver)
    assert state_of(review, "gates") == "waived"
    assert review_standing(review).blocking == ()
    assert waived_until(review) == waiver.expires_at
    for who in (compliance, risk):
        approved = review_decide(
            actor=who, review_id=review.pk, verdict="approve", reason="ok", digest=DIGEST
        )
    assert approved.state == ReviewState.APPROVED
    event = recorded(action="waiver:granted")
    assert (event.subject_type, event.department) == ("review", "clinical")
    # Revoked after the approval: the checklist stays as it was decided on, and stands no longer.
    waiver_revoke(actor=risk, waiver_id=waiver.pk, reason="It got worse.")
    assert state_of(review, "gates") == "waived"
    assert [item.code for item in review_standing(review).blocking] == ["gates"]
    assert waived_until(review) is None


def test_without_its_waiver_the_item_is_as_before(
    review: Review, submitter: Principal, compliance: Principal, risk: Principal
) -> None:
    for code, before in (("gates", "failed"), ("purpose", "open")):
        waiver = decide(compliance, ask(submitter, review, code))
        assert state_of(review, code) == "waived"
        waiver_revoke(actor=risk, waiver_id=waiver.pk, reason="No.")
        assert state_of(review, code) == before
        again = decide(compliance, ask(submitter, review, code))
        assert again.pk != waiver.pk


def test_who_asked_never_decides_whatever_they_are(
    review: Review, compliance: Principal, risk: Principal
) -> None:
    waiver = ask(compliance, review)
    for verdict in ("granted", "refused"):
        with pytest.raises(NotPermitted, match="requested the waiver") as caught:
            decide(compliance, waiver, verdict)
        assert caught.value.code == "separation_of_duties"
        assert caught.value.attempt is not None
        assert caught.value.attempt.action == "waiver:decide"
    assert decide(risk, waiver).decided_by_id == risk.person_id


def test_who_had_a_part_in_it_asks_and_never_decides(
    opened: Callable[..., Review],
    submitter: Principal,
    compliance: Principal,
    lead: Principal,
) -> None:
    assert compliance.person_id is not None
    review = opened(checklist=CHECKLIST, excluded_people=[compliance.person_id])
    RoleAssignment.objects.create(
        person_id=submitter.person_id, role="reviewer", specialty="compliance"
    )
    waiver = ask(lead, review)
    for who in (principal_for_person(review.opened_by), compliance):
        with pytest.raises(NotPermitted, match="Separation of duties"):
            decide(who, waiver)
    with pytest.raises(NotPermitted):
        decide(lead, waiver)
    assert Waiver.objects.get().state == WaiverState.REQUESTED


def test_only_who_reviews_for_what_is_asked_decides(
    review: Review, submitter: Principal, actor: Callable[..., Principal]
) -> None:
    waiver = ask(submitter, review)
    with pytest.raises(NotPermitted, match="needs compliance and model-risk"):
        decide(actor("Priya", "reviewer:privacy"), waiver)
    for role in ("admin", "operator", "auditor"):
        with pytest.raises(NotPermitted):
            decide(actor(role.title(), role), waiver)


def test_a_decision_needs_a_fresh_proof(
    review: Review, submitter: Principal, compliance: Principal
) -> None:
    waiver = ask(submitter, review)
    stale = principal_for_person(Person.objects.get(pk=compliance.person_id))
    with pytest.raises(NotPermitted, match="needs a second factor") as caught:
        decide(stale, waiver)
    assert caught.value.code == "step_up_required"
    granted = decide(compliance, waiver)
    with pytest.raises(NotPermitted, match="needs a second factor"):
        waiver_revoke(actor=stale, waiver_id=granted.pk, reason="No.")


@pytest.mark.parametrize("code", ["digest", "intake"])
def test_what_is_about_trusted_bytes_is_never_waived(
    review: Review, submitter: Principal, compliance: Principal, code: str
) -> None:
    with pytest.raises(WrongState, match="is never waived"):
        ask(submitter, review, code)
    row = {
        "review": review,
        "item": review.checklist.get(code=code),
        "digest": DIGEST,
        "round": 1,
        "reason": "r",
        "expires_at": soon(),
        "asked_by_id": submitter.person_id,
    }
    with pytest.raises(IntegrityError, match="is never waived"), transaction.atomic():
        Waiver.objects.create(**row)


def test_what_cannot_be_asked_for(
    review: Review, submitter: Principal, compliance: Principal, actor: Callable[..., Principal]
) -> None:
    with pytest.raises(NotFound, match="has no item nothing"):
        ask(submitter, review, "nothing")
    with pytest.raises(NotFound):
        ask(submitter, review, "ga\x00tes")
    with pytest.raises(NotFound):
        ask(actor("Fay", "lead@finance"), review)
    with pytest.raises(NotPermitted):
        ask(actor("Vera", "viewer@clinical"), review)
    for wrong in ({"reason": " "}, {"reason": "x" * 1001}):
        with pytest.raises(InvalidInput, match="reason of 1 to 1000"):
            ask(submitter, review, **wrong)
    for end in (soon(seconds=-1), soon(days=367)):
        with pytest.raises(InvalidInput, match="within 366 days"):
            ask(submitter, review, expires_at=end)
    checklist_attest(actor=compliance, review_id=review.pk, code="purpose", note="Read.")
    with pytest.raises(WrongState, match="is met"):
        ask(submitter, review, "purpose")
    waiver = ask(submitter, review)
    with pytest.raises(WrongState, match="it cannot have a second one"):
        ask(compliance, review)
    with pytest.raises(InvalidInput, match="granted or refused"):
        decide(compliance, waiver, "expired")
    decide(compliance, waiver, "refused")
    review_decide(
        actor=compliance, review_id=review.pk, verdict="reject", reason="no", digest=DIGEST
    )
    with pytest.raises(WrongState, match="the review is rejected"):
        ask(submitter, review)


def test_what_is_waived_is_not_attested_before_its_waiver_is_revoked(
    review: Review, submitter: Principal, compliance: Principal, risk: Principal
) -> None:
    waiver = decide(compliance, ask(submitter, review, "purpose"))
    with pytest.raises(WrongState, match="revoke its waiver first"):
        checklist_attest(actor=risk, review_id=review.pk, code="purpose", note="Read.")
    waiver_revoke(actor=risk, waiver_id=waiver.pk, reason="I read it.")
    attested = checklist_attest(actor=risk, review_id=review.pk, code="purpose", note="Read.")
    assert (attested.state, attested.digest) == ("satisfied", DIGEST)


def test_who_asked_takes_it_back_until_it_is_decided(
    review: Review, submitter: Principal, compliance: Principal
) -> None:
    waiver = ask(submitter, review)
    with pytest.raises(NotPermitted, match="did not request"):
        waiver_withdraw(actor=compliance, waiver_id=waiver.pk, reason="Mine.")
    withdrawn = waiver_withdraw(actor=submitter, waiver_id=waiver.pk, reason="Measured.")
    assert withdrawn.ended_by_id == submitter.person_id
    with pytest.raises(WrongState, match="is withdrawn"):
        decide(compliance, waiver)


def answer(submitter: Principal, review: Review, digest: str, note: str) -> Review:
    return review_answer(
        actor=submitter,
        review_id=review.pk,
        digest=digest,
        message="Here.",
        checklist=[ChecklistEntry("gates", "Gates", outcome=CheckOutcome.FAILED, note=note)],
    )


def ask_for_changes(actor: Principal, review: Review) -> None:
    review_decide(
        actor=actor, review_id=review.pk, verdict="request_changes", reason="?", digest=DIGEST
    )


@pytest.mark.parametrize(
    ("digest", "note", "kept"),
    [
        (DIGEST, "accuracy failed with 0.7", True),
        (DIGEST, "accuracy failed with 0.2", False),
        (OTHER, "accuracy failed with 0.7", False),
    ],
)
def test_a_new_round_takes_back_what_excused_another_digest_or_another_result(
    review: Review,
    submitter: Principal,
    compliance: Principal,
    digest: str,
    note: str,
    kept: bool,
) -> None:
    granted = decide(compliance, ask(submitter, review))
    ask_for_changes(compliance, review)
    answer(submitter, review, digest, note)
    granted.refresh_from_db()
    assert granted.state == (WaiverState.GRANTED if kept else WaiverState.REVOKED)
    assert state_of(review, "gates") == ("waived" if kept else "failed")
    blocking = [item.code for item in review_standing(Review.objects.get()).blocking]
    assert ("gates" in blocking) is not kept
    if not kept:
        event = recorded(action="waiver:revoked")
        assert event.policy_version == 1
        assert (granted.ended_by_id, granted.end_reason) == (
            submitter.person_id,
            "The subject of the review has changed.",
        )


def test_who_granted_a_waiver_and_then_answers_for_the_department_has_granted_nothing(
    review: Review, submitter: Principal, compliance: Principal, actor: Callable[..., Principal]
) -> None:
    both = actor("Bea", "reviewer:model-risk", "developer@clinical")
    granted = decide(both, ask(submitter, review))
    ask_for_changes(compliance, review)
    answer(both, review, DIGEST, "accuracy failed with 0.7")
    granted.refresh_from_db()
    assert granted.state == WaiverState.REVOKED
    assert state_of(review, "gates") == "failed"


def test_what_somebody_has_approved_with_is_not_waived_for_longer_afterwards(
    review: Review, submitter: Principal, compliance: Principal, risk: Principal
) -> None:
    checklist_attest(actor=risk, review_id=review.pk, code="purpose", note="Read it.")
    review.checklist.filter(code="intake").update(state="satisfied")
    short = decide(risk, ask(submitter, review, expires_at=soon(days=1)))
    approve: dict[str, Any] = {"verdict": "approve", "reason": "Until then.", "digest": DIGEST}
    review_decide(actor=compliance, review_id=review.pk, **approve)
    waiver_revoke(actor=risk, waiver_id=short.pk, reason="Too short.")
    longer = ask(submitter, review, expires_at=soon(days=300))
    with pytest.raises(WrongState, match="a reviewer approved in round 1 of review"):
        decide(risk, longer)
    with pytest.raises(WrongState, match="cannot be approved: Gates"):
        review_decide(actor=risk, review_id=review.pk, **approve)


def test_a_new_round_takes_back_what_was_only_asked_for(
    review: Review, submitter: Principal, compliance: Principal
) -> None:
    waiver = ask(submitter, review, "purpose")
    ask_for_changes(compliance, review)
    answer(submitter, review, OTHER, "accuracy failed with 0.7")
    waiver.refresh_from_db()
    assert waiver.state == WaiverState.WITHDRAWN
    assert state_of(review, "purpose") == "open"


def test_a_waiver_excuses_nothing_from_its_end_on_and_the_controller_says_so_once(
    review: Review, submitter: Principal, compliance: Principal
) -> None:
    waiver = decide(compliance, ask(submitter, review))
    overdue(waiver)
    assert "gates" in [item.code for item in review_standing(review).blocking]
    assert waivers_expire_due() == 1
    assert waivers_expire_due() == 0
    waiver.refresh_from_db()
    assert (waiver.state, waiver.ended_by_id) == (WaiverState.EXPIRED, None)
    assert state_of(review, "gates") == "failed"
    assert recorded(action="waiver:expired").actor_id == "controller"


def test_a_request_whose_end_has_passed_is_only_refused(
    review: Review, submitter: Principal, compliance: Principal
) -> None:
    waiver = ask(submitter, review)
    overdue(waiver)
    with pytest.raises(WrongState, match="it would have ended on"):
        decide(compliance, waiver)
    assert decide(compliance, waiver, "refused").state == WaiverState.REFUSED


def test_the_database_refuses_what_no_service_would_write(
    opened: Callable[..., Review], submitter: Principal, compliance: Principal, lead: Principal
) -> None:
    assert compliance.person_id is not None
    review = opened(checklist=CHECKLIST, excluded_people=[compliance.person_id])
    waiver = ask(lead, review)
    row = Waiver.objects.filter(pk=waiver.pk)
    now = timezone.now()

    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(IntegrityError, match=match), transaction.atomic():
            row.update(**changes)

    granted = {"state": "granted", "decided_at": now}
    refused("asker_never_decides", **granted, decided_by_id=lead.person_id)
    refused("is excluded from deciding", **granted, decided_by_id=compliance.person_id)
    refused("is excluded from deciding", **granted, decided_by_id=submitter.person_id)
    refused("decided_waiver_says_by_whom", **granted)
    refused("keeps its terms", reason="Another.")
    refused("keeps its terms", expires_at=soon(days=300))
    refused("keeps its terms", asked_by_id=submitter.person_id)
    with pytest.raises(IntegrityError, match="DELETE is refused"), transaction.atomic():
        row.delete()
    with pytest.raises(IntegrityError, match="one_waiver_at_a_time"), transaction.atomic():
        Waiver.objects.create(
            review=review, item=waiver.item, digest=DIGEST, round=1, reason="r",
            expires_at=soon(), asked_by_id=submitter.person_id,
        )  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_two_who_decide_at_once_have_one_order(
    review: Review, submitter: Principal, compliance: Principal, risk: Principal
) -> None:
    waiver = ask(submitter, review)
    start = threading.Barrier(2)
    said: dict[str, str] = {}

    def one(who: Principal, verdict: str) -> None:
        start.wait()
        try:
            said[verdict] = decide(who, waiver, verdict).state
        except DomainError as error:
            said[verdict] = error.message
        finally:
            connection.close()

    threads = [
        threading.Thread(target=one, args=pair)
        for pair in ((compliance, "granted"), (risk, "refused"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waiver.refresh_from_db()
    lost = "refused" if waiver.state == "granted" else "granted"
    assert said[waiver.state] == waiver.state
    assert "there is nothing to decide" in said[lost]
    assert AuditEvent.objects.filter(action__in=("waiver:granted", "waiver:refused")).count() == 1


def test_who_set_the_requesters_account_up_alone_decides_on_nothing_of_theirs(
    review: Review, lead: Principal, compliance: Principal
) -> None:
    asker = Person.objects.get(pk=lead.person_id)
    set_up_alone(Person.objects.get(pk=compliance.person_id), asker)
    waiver = ask(lead, review)
    with pytest.raises(NotPermitted) as caught:
        decide(compliance, waiver)
    assert caught.value.code == "separation_of_duties"
