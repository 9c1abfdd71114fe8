"""Erasing a person through the API, the command line and the portal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.models import IdempotencyRecord
from governance.audit.sealer import seal_once
from governance.audit.selectors import verify_live
from governance.people.models import Person
from governance.people.services import person_deactivate
from tests.proofs import proven, signed_in
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.sign_in_support import Visitor, with_password
from tests.unit.audit_support import bodies
from tests.unit.dump import found

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]
WHY = {"reason": "Asked for it on 3 May."}
CANARIES = ("Zebedee", "Quillfrost", "zebedee.quillfrost@example.org")


@pytest.fixture(autouse=True)
def _a_second_place_of_its_own(settings: Any, tmp_path: Path) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path


@pytest.fixture
def ada(person: Callable[..., Person]) -> Person:
    return with_password(person("Ada", "admin"))


@pytest.fixture
def zebedee(ada: Person, person: Callable[..., Person]) -> Person:
    """Somebody who has left, and whom an answer that is kept for a repeated request names."""
    made = with_password(person("Zebedee Quillfrost", "developer@clinical"))
    Visitor().password(made)
    person_deactivate(actor=proven(ada), person_id=made.pk, reason="Left.")
    for principal, body in (
        ("key:1", {"submitted_by": {"name": made.name}}),
        (f"person:{made.pk}", {"id": 7}),
        ("key:2", {"id": 8}),
    ):
        IdempotencyRecord.objects.create(
            principal=principal, key=principal, fingerprint="f" * 64, status=201, body=body
        )
    return made


def test_an_admin_erases_through_the_api_and_nothing_of_them_is_left(
    ada: Person, zebedee: Person
) -> None:
    path = f"people/{zebedee.pk}/erase"
    assert problem_of(Api(ada).post(path, {"reason": "For Zebedee"}), 400)
    answer = Api(ada).post(path, WHY)
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert told["name"] == f"Erased person {zebedee.pk}"
    assert told["erased_at"] is not None
    assert told["roles"] == []
    assert found(CANARIES) == []
    assert list(IdempotencyRecord.objects.values_list("principal", flat=True)) == ["key:2"]
    assert problem_of(Api(ada).post(path, WHY), 409)
    assert problem_of(Api(ada).post(f"people/{zebedee.pk}/reactivate", {}), 409)
    seal_once()
    assert verify_live().ok
    events = Api(ada).get("audit/events", actor_id=str(zebedee.pk)).json()["results"]
    assert events
    assert {event["actor"]["name"] for event in events} == {f"erased person {zebedee.pk}"}


def test_nobody_else_erases_and_the_attempt_is_on_record(
    zebedee: Person, person: Callable[..., Person]
) -> None:
    for name, role, status in (("Olga", "operator", 403), ("Lena", "lead@finance", 404)):
        answer = Api(person(name, role)).post(f"people/{zebedee.pk}/erase", WHY)
        assert answer.status_code == status
    tried = bodies(outcome="denied")
    assert [body["action"] for body in tried][:1] == ["person:erase"]
    assert len(tried) == 2
    assert Person.objects.get(pk=zebedee.pk).name == "Zebedee Quillfrost"


def test_the_portal_asks_for_the_address_and_for_a_second_factor(
    ada: Person, zebedee: Person
) -> None:
    path = f"/people/{zebedee.pk}/erase"
    form = {"why": "Asked for it.", "confirm": zebedee.email}
    stale = Visitor()
    stale.client.force_login(ada)
    answer = stale.post(path, **form)
    assert answer.status_code == 403
    assert "Verify your identity" in answer.content.decode()
    fresh = Visitor()
    signed_in(fresh.client, ada)
    page = " ".join(fresh.get(f"/people/{zebedee.pk}").content.decode().split())
    assert "Erase permanently" in page
    assert "cannot be undone" in page
    wrong = fresh.post(path, **{**form, "confirm": "other@example.org"})
    assert wrong.status_code == 400
    assert "The address does not match" in wrong.content.decode()
    named = fresh.post(path, **{**form, "why": "Zebedee asked"})
    assert named.status_code == 400
    assert "names the person" in named.content.decode()
    assert Person.objects.get(pk=zebedee.pk).erased_at is None

    assert fresh.post(path, **form).status_code == 302
    assert found(CANARIES) == []
    page = fresh.get(f"/people/{zebedee.pk}").content.decode()
    assert f"Erased person {zebedee.pk}" in page
    assert "Erased on" in page
    assert "Erase permanently" not in page
    assert "Reactivate" not in page
    assert "@invalid" not in page
    log = fresh.get("/audit").content.decode()
    assert f"erased person {zebedee.pk}" in log
    assert "Zebedee" not in log


def test_who_is_active_has_no_such_button(ada: Person, person: Callable[..., Person]) -> None:
    other = person("Someone Else")
    page = Visitor().sign_in(ada).get(f"/people/{other.pk}").content.decode()
    assert "Erase" not in page
