"""The retention of responses by the management API, and the erasure of a person's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest
from django.db import connection, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.people.models import Department, Person
from governance.principals import Principal, PrincipalKind, service_principal
from registry.responses.models import ResponseRetention, StoredResponse
from registry.responses.selectors import responses_visible_to
from registry.responses.services import (
    response_create,
    responses_expire_due,
    responses_forget_person,
)
from tests.unit.assay.api_support import Api, problem_of
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.usefixtures("policy")
PATH = "departments/clinical/response-retention"


def stored(department: Department, name: str, person: Person | None = None) -> StoredResponse:
    return StoredResponse.objects.create(
        id=f"resp_{name}",
        department=department,
        deployment="writer",
        sender="app",
        person=person,
        items=[],
        response={},
        size=2,
        expires_at=timezone.now() + timedelta(days=30),
    )


def test_a_lead_sets_how_long_their_department_keeps_responses(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    lead = Api(person("Lena", "lead@clinical"))
    kept = stored(department("clinical"), "a")
    theirs = stored(department("finance"), "b")
    assert lead.get(PATH).body == {"department": "clinical", "days": 0}
    assert lead.post(PATH, {"days": 7}).body == {"department": "clinical", "days": 7}
    kept.refresh_from_db()
    assert kept.expires_at == kept.created_at + timedelta(days=7)
    lead.post(PATH, {"days": 20})
    kept.refresh_from_db()
    assert kept.expires_at == kept.created_at + timedelta(days=7)
    problem_of(lead.post(PATH, {"days": 366}), 400)
    lead.post(PATH, {"days": 0})
    assert list(StoredResponse.objects.all()) == [theirs]
    events = AuditEvent.objects.filter(action="response:retain", outcome="allowed")
    assert [event.department for event in events] == ["clinical"] * 3


@pytest.mark.django_db(transaction=True)
def test_a_response_that_is_being_stored_obeys_a_retention_that_is_set_meanwhile(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    lead = Api(person("Lena", "lead@clinical"))
    clinical = department("clinical")
    key = Principal(kind=PrincipalKind.KEY, id="1", name="app", department="clinical")
    ResponseRetention.objects.create(department=clinical, days=30)
    stored_one, may_end = Event(), Event()

    def store() -> None:
        with transaction.atomic():
            response_create(
                actor=key, department=clinical, sender="app", id="resp_a", deployment="writer",
                ancestors=[], items=[], response={},
            )  # fmt: skip
            stored_one.set()
            may_end.wait(PATIENCE_S)
        connection.close()

    with ThreadPoolExecutor(1) as threads:
        storing = threads.submit(store)
        stored_one.wait(PATIENCE_S)
        assert lead.post(PATH, {"days": 0}).status_code == 200
        may_end.set()
        storing.result(PATIENCE_S)
    # It is not found, and deleted within a minute.
    assert not responses_visible_to(service_principal("controller")).exists()
    responses_expire_due()
    assert not StoredResponse.objects.exists()


def test_a_response_that_is_being_stored_lasts_no_longer_than_a_retention_that_is_set_meanwhile(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    clinical = department("clinical")
    lead = Api(person("Lena", "lead@clinical"))
    assert lead.post(PATH, {"days": 7}).status_code == 200
    stored(clinical, "a")
    assert responses_expire_due() == 0
    assert StoredResponse.objects.get().expires_at < timezone.now() + timedelta(days=8)


def test_others_do_not_set_the_retention_of_a_department(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    department("clinical")
    developer = Api(person("Dana", "developer@clinical"))
    assert developer.get(PATH).status_code == 200
    assert developer.post(PATH, {"days": 7}).status_code in (403, 404)
    stranger = Api(person("Sam", "lead@finance"))
    problem_of(stranger.get(PATH), 404)
    problem_of(stranger.post(PATH, {"days": 7}), 404)
    lead = Api(person("Lena", "lead@clinical"))
    assert lead.get(PATH).body["days"] == 0


def test_all_that_is_expired_is_deleted_at_once(
    department: Callable[[str], Department], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.responses.services._EXPIRED_AT_ONCE", 2)
    for name in "abcde":
        stored(department("clinical"), name)
    StoredResponse.objects.exclude(pk="resp_e").update(expires_at=timezone.now())
    assert responses_expire_due() == 4
    assert [each.pk for each in StoredResponse.objects.all()] == ["resp_e"]
    assert responses_expire_due() == 0


def test_the_erasure_of_a_person_deletes_what_they_asked(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    ada = person("Ada")
    stored(department("clinical"), "a", ada)
    left = stored(department("clinical"), "b")
    assert responses_forget_person(ada) == {"responses": 1}
    assert list(StoredResponse.objects.all()) == [left]
