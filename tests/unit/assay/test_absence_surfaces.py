"""Absences through the API and the portal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from governance.people.models import Person, RoleAssignment
from governance.reviews.absences.models import Absence
from governance.reviews.models import Decision
from tests import proofs
from tests.unit.assay.api_support import Api
from tests.unit.assay.portal_data import Company

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def asked(company: Company, **changes: Any) -> dict[str, Any]:
    now = timezone.now()
    return {
        "deputy": company.milo.pk,
        "specialty": "compliance",
        "starts_at": (now - timedelta(minutes=1)).isoformat(),
        "ends_at": (now + timedelta(days=3)).isoformat(),
        **changes,
    }


def test_a_reviewer_names_a_deputy_who_then_votes_in_their_place(company: Company) -> None:
    pia = Person.objects.create(name="Pia Privacy", email="pia@assay.example")
    RoleAssignment.objects.create(person=pia, role="reviewer", specialty="privacy")
    deputy = Api(pia)
    made = Api(company.carla).post("absences", asked(company, deputy=pia.pk))
    assert made.status_code == 201, made.body
    assert (made.body["person"], made.body["deputy_name"]) == (company.carla.pk, "Pia Privacy")
    assert [each["id"] for each in deputy.get("absences").body["results"]] == [made.body["id"]]
    assert Api(company.enzo).get("absences").body["results"] == []
    review = company.review_open
    page = proofs.signed_in(Client(), pia).get(f"/reviews/{review.pk}").content.decode()
    assert 'name="specialty" value="compliance"' in page
    voted = deputy.post(
        f"releases/{review.subject_id}/decisions",
        {
            "verdict": "request_changes",
            "specialty": "compliance",
            "reason": "Who stops it?",
            "digest": review.digest,
        },
    )
    assert voted.status_code == 201, voted.body
    decision = Decision.objects.get(person=pia, review=review, verdict="request_changes")
    assert decision.in_place_of_id == company.carla.pk
    page = proofs.signed_in(Client(), company.devi).get(f"/reviews/{review.pk}").content.decode()
    assert f"in the place of {company.carla.name}" in " ".join(page.split())


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"deputy": 999_999}, 404, "Reviewer 999999 does not exist"),
        ({"specialty": "security"}, 409, "does not review for security"),
        ({"specialty": "cheese"}, 400, "specialty"),
        ({"ends_at": "yesterday"}, 400, "ends_at"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, 400, "ends before it starts"),
        ({"deputy": "milo"}, 400, "deputy"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    company: Company, changes: dict[str, Any], status: int, says: str
) -> None:
    answer = Api(company.carla).post("absences", asked(company, **changes))
    assert answer.status_code == status
    assert says in str(answer.body)
    assert not Absence.objects.exists()


def test_nobody_else_may_name_a_deputy_for_them_or_end_it(company: Company) -> None:
    refused = Api(company.milo).post(
        "absences", asked(company, person=company.carla.pk, deputy=company.milo.pk)
    )
    assert refused.status_code in {403, 404}
    hidden = Api(company.enzo).post("absences", asked(company, person=company.carla.pk))
    assert hidden.status_code == 404
    made = Api(company.ada).post("absences", asked(company, person=company.carla.pk))
    assert made.status_code == 201, made.body
    ended = f"absences/{made.body['id']}/end"
    assert Api(company.devi).post(ended).status_code == 404
    answer = Api(company.milo).post(ended)
    assert answer.status_code == 200
    assert answer.body["ended_at"]
    assert Api(company.carla).post(ended).status_code == 409


def test_the_page_names_a_deputy_and_ends_it(company: Company) -> None:
    client = proofs.signed_in(Client(), company.carla)
    now = timezone.now()
    form = {
        "specialty": "compliance",
        "deputy": company.milo.pk,
        "starts_at": (now - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M"),
        "ends_at": (now + timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M"),
    }
    answer = client.post("/reviews/absences", form, follow=True)
    assert company.milo.name in answer.content.decode()
    absence = Absence.objects.get()
    assert (absence.person_id, absence.deputy_id) == (company.carla.pk, company.milo.pk)
    refused = client.post("/reviews/absences", form)
    assert refused.status_code == 409
    assert "covers some of that time" in refused.content.decode()
    theirs = proofs.signed_in(Client(), company.milo)
    assert "Decline" in theirs.get("/reviews/absences").content.decode()
    assert theirs.post(f"/reviews/absences/{absence.pk}/end").status_code == 302
    assert "ended early" in client.get("/reviews/absences").content.decode()
    empty = client.post("/reviews/absences", {})
    assert empty.status_code == 400


def test_who_reviews_for_nothing_sees_why_there_is_no_form(company: Company) -> None:
    page = proofs.signed_in(Client(), company.enzo).get("/reviews/absences")
    assert page.status_code == 200
    assert "Only reviewers have deputies" in page.content.decode()
