"""Conditions, grace and renewal on the portal's pages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from governance.people.models import Person
from governance.reviews.models import ChecklistItem, Decision, Review
from registry.releases.models import Release
from tests.unit.assay.api_support import Api
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_api_releases import people, release
from tests.unit.assay.test_conditions_surfaces import attested
from tests.unit.assay.test_portal_pages import inline_in, signed_in

__all__ = ["attested", "people", "release"]

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
ASKED: dict[str, Any] = {
    "until": "2040-03-01T00:00:00+00:00",
    "requests_per_minute": 100,
    "obligations": ["The tech lead reads <every> tenth."],
}


def page(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, response.content[:500]
    html = response.content.decode()
    assert inline_in(html) == []
    return " ".join(html.split())


def changed(release: Release, **columns: Any) -> None:
    """As whoever owns the table could, past what stands."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        Release.objects.filter(pk=release.pk).update(**columns)
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")


def called(name: str) -> Client:
    """Somebody of the API's story, in the portal."""
    return signed_in(Person.objects.get(name=name))


@pytest.fixture
def approvable(attested: dict[str, Any]) -> Review:
    """An open review of a real dossier, with its whole checklist met."""
    return Review.objects.get(pk=attested["review"]["id"])


@pytest.mark.usefixtures("policy", "redis")
def test_a_reviewer_types_conditions_and_the_next_one_reads_them(approvable: Review) -> None:
    review = approvable
    assert "Conditions of your approval" in page(called("Carla"), f"/reviews/{review.pk}")
    answer = called("Carla").post(
        f"/reviews/{review.pk}/decide",
        {
            "verdict": "approve",
            "reason": "With care.",
            "digest": review.digest,
            "specialty": "compliance",
            "condition_until": (timezone.now() + timedelta(days=20)).date().isoformat(),
            "condition_rate": "100",
            "condition_obligations": "A pharmacist reads <every> tenth.\n\n",
        },
    )
    assert answer.status_code == 302, answer.content[:2000]
    asked = Decision.objects.get(verdict="approve").conditions
    assert asked["requests_per_minute"] == 100
    assert asked["obligations"] == ["A pharmacist reads <every> tenth."]
    assert asked["until"].endswith("T00:00:00+00:00")
    seen = page(called("Milo"), f"/reviews/{review.pk}")
    assert "Carla asks: until " in seen
    assert "at most 100 requests per minute" in seen
    assert "&lt;every&gt; tenth" in seen


@pytest.mark.usefixtures("policy", "redis")
@pytest.mark.parametrize(
    "typed",
    [
        {"condition_rate": "many"},
        {"condition_rate": "0"},
        {"condition_rate_finance": "5"},
        {"condition_until": "soon"},
        {"condition_until": "2001-01-01"},
        {"condition_departments": "finance"},
    ],
)
def test_what_cannot_be_asked_is_refused_and_stays_typed(
    typed: dict[str, str], approvable: Review
) -> None:
    answer = called("Carla").post(
        f"/reviews/{approvable.pk}/decide",
        {
            "verdict": "approve",
            "reason": "With care.",
            "digest": approvable.digest,
            "specialty": "compliance",
            "condition_obligations": "Kept as typed.",
            **typed,
        },
    )
    assert answer.status_code == 400
    html = answer.content.decode()
    assert 'role="alert"' in html
    assert "Kept as typed." in html
    assert not Decision.objects.exists()


@pytest.mark.usefixtures("policy", "redis")
def test_conditions_stay_typed_when_a_decision_is_refused(approvable: Review) -> None:
    carla = called("Carla")
    typed = {"verdict": "approve", "reason": "", "condition_rate": "77"}
    refused = carla.post(
        f"/reviews/{approvable.pk}/decide",
        {**typed, "condition_obligations": "No children.", "digest": approvable.digest},
    )
    assert refused.status_code == 400
    html = " ".join(refused.content.decode().split())
    assert 'name="condition_rate" value="77"' in html
    assert "No children." in html


def test_conditions_stand_where_the_release_does(company: Company) -> None:
    changed(company.live, conditions=ASKED)
    enzo = signed_in(company.enzo)
    for address in (f"/releases/{company.live.pk}", f"/deployments/{company.deployment.pk}"):
        html = page(enzo, address)
        assert "until 1 March 2040, 00:00 UTC" in html
        assert "&lt;every&gt;" in html


def test_an_end_that_is_near_is_said_and_a_grace_more_loudly(company: Company) -> None:
    enzo = signed_in(company.enzo)
    release, deployment = company.live, company.deployment
    addresses = (f"/releases/{release.pk}", f"/deployments/{deployment.pk}")
    for address in ("/", *addresses):
        assert "Submit it again" not in page(enzo, address)
    changed(release, expires_at=timezone.now() + timedelta(days=9))
    for address in addresses:
        assert "Submit it again</a> in time" in page(enzo, address)
    assert "Expiring approvals" in page(enzo, "/")
    changed(release, expires_at=timezone.now() - timedelta(days=1), grace_days=7)
    for address in addresses:
        assert "It serves in its grace period until" in page(enzo, address)
    assert "in its grace period since" in page(enzo, "/")
    assert "Expiring approvals" not in page(signed_in(company.fay), "/")


@pytest.mark.usefixtures("policy", "redis")
def test_a_release_is_submitted_again_by_a_button(
    people: dict[str, Api], attested: dict[str, Any]
) -> None:
    address = f"/releases/{attested['id']}"
    assert "Submit again" not in page(called("Devi"), address)
    people["dev"].post(f"releases/{attested['id']}/withdraw", {"reason": "Later."})
    assert f"{address}/renewal" in page(called("Devi"), address)
    html = page(called("Devi"), f"{address}/renewal")
    assert "Attested by Carla on" in html
    assert "Nothing but the time." in html
    assert called("Fay").get(f"{address}/renewal").status_code == 404
    assert called("Fay").post(f"{address}/renewal").status_code == 404
    assert called("Carla").post(f"{address}/renewal").status_code == 403
    answer = called("Devi").post(f"{address}/renewal")
    assert answer.status_code == 302
    made = Release.objects.get(renews=attested["id"])
    review = Review.objects.get(subject_id=str(made.pk))
    assert answer.headers["Location"] == f"/reviews/{review.pk}"
    assert "Carried over from" in page(called("Carla"), f"/reviews/{review.pk}")
    assert f"Release {attested['id']}</a>" in page(called("Devi"), f"/releases/{made.pk}")
    assert f"Release {made.pk}</a>" in page(called("Devi"), address)
    assert called("Devi").post(f"{address}/renewal").status_code == 409


def test_what_cannot_be_submitted_again_says_why(company: Company) -> None:
    html = page(signed_in(company.enzo), f"/releases/{company.waiting.pk}/renewal")
    assert "it cannot be submitted again" in html
    assert "Submit for review" not in html


def test_what_is_carried_over_says_from_where_by_whom_and_when(company: Company) -> None:
    ChecklistItem.objects.filter(review=company.review_open, code="purpose").update(
        carried_from=company.review_approved,
        attested_at=timezone.now().replace(year=2026, month=3, day=4),
    )
    html = page(signed_in(company.carla), f"/reviews/{company.review_open.pk}")
    said = " ".join(html.split())
    assert f">release {company.live.pk}</a>, attested by Milo Model-Risk on 4 Mar 2026" in said
