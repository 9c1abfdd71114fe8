"""Nobody decides on what they asked for: not on a page, not through the API, not by granting
themselves what it takes, and not past the services by the ORM.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import WrongState
from governance.keys.services import access_token_create
from governance.people.models import Person, RoleAssignment
from governance.policy.models import PolicyVersion
from governance.reviews.models import Decision, Review
from registry.intake.models import Intake
from registry.releases.models import Release
from registry.releases.services import release_servable
from tests.abuse.company import caller
from tests.abuse.surface import JSON
from tests.proofs import fresh_proof, signed_in, vote_proof
from tests.unit.assay.portal_data import Company

SPECIALTIES = ("compliance", "model-risk", "security")


@pytest.fixture
def enzo(company: Company) -> Person:
    """Person who requested the release, and has since become a reviewer of everything, and an
    admin.
    """
    for specialty in SPECIALTIES:
        RoleAssignment.objects.create(person=company.enzo, role="reviewer", specialty=specialty)
    RoleAssignment.objects.create(person=company.enzo, role="admin")
    RoleAssignment.objects.create(person=company.enzo, role="operator")
    enzo: Person = company.enzo
    return enzo


def page(person: Person) -> Client:
    client = Client(raise_request_exception=False)
    return signed_in(client, person)


def api(person: Person) -> Client:
    _, token = access_token_create(person=person, name="attack", proof=fresh_proof())
    return Client(headers={"authorization": f"Bearer {token}"}, raise_request_exception=False)


def vote(company: Company, **changes: Any) -> dict[str, Any]:
    body = {
        "verdict": "approve",
        "reason": "I like it.",
        "digest": company.waiting.dossier_digest,
        "specialty": "security",
    }
    return {**body, **changes}


def votes(company: Company, person: Person) -> int:
    review: Review = company.review_open
    return int(review.decisions.filter(person=person).exclude(verdict="comment").count())


@pytest.mark.parametrize("verdict", ["approve", "reject", "request_changes"])
@pytest.mark.parametrize("specialty", SPECIALTIES)
def test_on_a_page(company: Company, enzo: Person, verdict: str, specialty: str) -> None:
    response = page(enzo).post(
        f"/reviews/{company.review_open.pk}/decide",
        vote(company, verdict=verdict, specialty=specialty),
    )
    assert response.status_code == 403
    assert votes(company, enzo) == 0
    newest = AuditEvent.objects.filter(outcome="denied").latest("pk")
    assert newest.actor_id == str(enzo.pk)


@pytest.mark.parametrize("verdict", ["approve", "reject", "request_changes"])
def test_through_the_api(company: Company, enzo: Person, verdict: str) -> None:
    path = f"/api/v1/releases/{company.waiting.pk}/decisions"
    response = api(enzo).post(path, vote(company, verdict=verdict), content_type=JSON)
    assert (response.status_code, votes(company, enzo)) == (403, 0)


def test_by_who_wrote_the_version(company: Company) -> None:
    """Devi did not ask for it; she trained it, and is excluded by name."""
    for specialty in SPECIALTIES:
        RoleAssignment.objects.create(person=company.devi, role="reviewer", specialty=specialty)
    path = f"/api/v1/releases/{company.waiting.pk}/decisions"
    response = api(company.devi).post(path, vote(company), content_type=JSON)
    assert (response.status_code, votes(company, company.devi)) == (403, 0)


def test_by_attesting_ones_own_checklist(company: Company, enzo: Person) -> None:
    path = f"/api/v1/releases/{company.waiting.pk}/checklist/oversight"
    response = api(enzo).post(path, {"note": "Seen."}, content_type=JSON)
    assert response.status_code == 403
    assert company.review_open.checklist.get(code="oversight").attested_by is None


def test_by_signing_off_ones_own_delivery(company: Company, enzo: Person) -> None:
    path = f"/api/v1/intakes/{company.signable.pk}/sign-off"
    response = api(enzo).post(path, {"accept": True, "reason": "Mine."}, content_type=JSON)
    assert response.status_code == 403
    assert Intake.objects.get(pk=company.signable.pk).state == "awaiting_sign_off"


def test_by_granting_oneself_a_role(company: Company) -> None:
    """Not even an admin, who grants everybody else's."""
    before = company.ada.role_assignments.count()
    path = f"/api/v1/people/{company.ada.pk}/roles"
    body = {"role": "reviewer", "specialty": "security"}
    assert api(company.ada).post(path, body, content_type=JSON).status_code == 403
    form = {"role": "reviewer", "specialty": "security", "department": ""}
    assert page(company.ada).post(f"/people/{company.ada.pk}/roles", form).status_code == 403
    assert company.ada.role_assignments.count() == before


def test_by_a_lead_who_makes_a_reviewer(company: Company) -> None:
    for role in ({"role": "admin"}, {"role": "reviewer", "specialty": "security"}):
        path = f"/api/v1/people/{company.devi.pk}/roles"
        response = api(company.enzo).post(path, role, content_type=JSON)
        assert response.status_code == 403
    assert {each.role for each in company.devi.role_assignments.all()} == {"developer"}


def test_by_a_departments_key(company: Company) -> None:
    """A key speaks for no person, and only persons decide."""
    key = caller(company, "a key of engineering with every scope")
    path = f"/api/v1/releases/{company.waiting.pk}/decisions"
    assert key.post(path, vote(company), content_type=JSON).status_code in {403, 404}
    number = company.policy.number
    path = f"/api/v1/policy/versions/{number}/approve"
    assert key.post(path, {}, content_type=JSON).status_code in {403, 404}


def test_on_ones_own_policy(company: Company) -> None:
    """Ada drafted and proposed it; every way to a decision is closed to her."""
    path = f"/api/v1/policy/versions/{company.policy.number}"
    for verb, body in (("approve", {}), ("reject", {"reason": "No."})):
        response = api(company.ada).post(f"{path}/{verb}", body, content_type=JSON)
        assert response.status_code == 403, verb
    policy = PolicyVersion.objects.get(pk=company.policy.pk)
    assert (policy.state, policy.decided_by) == ("proposed", None)


def refused(change: Callable[[], Any], match: str | None = None) -> None:
    """PostgreSQL itself says no."""

    def at_once() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            change()
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    with pytest.raises(IntegrityError, match=match):
        at_once()


def test_by_the_orm_on_a_release(company: Company, enzo: Person) -> None:
    review = company.review_open
    row = {
        "review": review, "person": enzo, "verdict": "approve", "specialty": "security",
        "reason": "r", "digest": review.digest, "round": review.round, **vote_proof(),
    }  # fmt: skip
    refused(lambda: Decision.objects.create(**row, submitter=enzo))
    refused(lambda: Decision.objects.create(**row, submitter=company.fay))
    refused(lambda: Decision.objects.filter(review=review).update(person=enzo))
    refused(lambda: Review.objects.filter(pk=review.pk).update(excluded_people=[]))
    refused(lambda: Review.objects.filter(pk=review.pk).update(opened_by=company.fay))
    assert votes(company, enzo) == 0


def test_by_the_orm_on_a_policy(company: Company) -> None:
    rows = PolicyVersion.objects.filter(pk=company.policy.pk)
    PolicyVersion.objects.filter(number=1).update(state="superseded")
    now = timezone.now()
    mine = {"state": "active", "decided_by": company.ada, "decided_at": now}
    refused(lambda: rows.update(**mine))
    refused(lambda: rows.update(state="active"))
    refused(lambda: rows.update(**mine, proposed_by=company.adam))
    refused(lambda: rows.update(rules=[]))
    assert rows.get().state == "proposed"


def test_by_the_orm_on_a_delivery(company: Company, enzo: Person) -> None:
    rows = Intake.objects.filter(pk=company.signable.pk)
    refused(lambda: rows.update(signed_by=enzo))


def test_a_second_session_does_not_give_a_second_vote(company: Company) -> None:
    """Milo has approved as model risk; again from another browser, by a token, under another
    specialty that he has since been given: he has one vote in this round."""
    RoleAssignment.objects.create(person=company.milo, role="reviewer", specialty="security")
    assert votes(company, company.milo) == 1
    path = f"/api/v1/releases/{company.waiting.pk}/decisions"
    for specialty in ("model-risk", "security"):
        body = vote(company, specialty=specialty)
        page_answer = page(company.milo).post(f"/reviews/{company.review_open.pk}/decide", body)
        assert page_answer.status_code == 409
        for _ in range(2):
            assert api(company.milo).post(path, body, content_type=JSON).status_code == 409
    assert votes(company, company.milo) == 1


def test_a_role_that_is_gone_votes_no_more(company: Company) -> None:
    """The page was opened as a reviewer; the role went before the button was pressed."""
    client = page(company.carla)
    assert client.get(f"/reviews/{company.review_open.pk}").status_code == 200
    company.carla.role_assignments.all().delete()
    body = vote(company, verdict="reject", specialty="compliance")
    answer = client.post(f"/reviews/{company.review_open.pk}/decide", body)
    assert answer.status_code in {403, 404}
    assert votes(company, company.carla) == 1  # her word of the round before


def test_a_vote_on_what_the_dossier_was_is_not_taken(company: Company) -> None:
    path = f"/api/v1/releases/{company.waiting.pk}/decisions"
    body = vote(company, specialty="compliance", digest="0" * 64, verdict="reject")
    assert api(company.carla).post(path, body, content_type=JSON).status_code == 409


def test_by_writing_approved_into_the_row(company: Company) -> None:
    """Past every service: a release that is called approved without votes on record serves not."""
    now = timezone.now()
    Release.objects.filter(pk=company.waiting.pk).update(
        state="approved", approved_at=now, expires_at=now + timedelta(days=1)
    )
    with pytest.raises(WrongState, match="may not serve"):
        release_servable(Release.objects.get(pk=company.waiting.pk))
