"""The reviewer's inbox in the portal and through the API."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from governance.people.models import Person
from governance.reviews.models import Review
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def page(person: Person, query: str = "") -> str:
    client = Client()
    client.force_login(person)
    response = client.get(f"/reviews{query}")
    assert response.status_code == 200
    return response.content.decode()


def listed(html: str, review: Review) -> bool:
    return f'href="/reviews/{review.pk}"' in html


def test_a_reviewer_sees_first_what_waits_for_them(company: Company) -> None:
    waiting = company.review_open
    html = page(company.carla)
    assert listed(html, waiting)
    assert not listed(html, company.review_approved)
    assert "needs compliance" in html
    # Milo has approved; it waits for him no longer, and is among all that waits.
    assert not listed(page(company.milo), waiting)
    assert listed(page(company.milo, "?tab=waiting"), waiting)
    assert listed(page(company.milo, "?tab=closed"), company.review_approved)
    assert listed(page(company.asha), waiting)


def test_what_is_overdue_says_so_in_words(company: Company) -> None:
    waiting = company.review_open
    Review.objects.filter(pk=waiting.pk).update(due_at=timezone.now() - timedelta(days=2))
    html = page(company.carla, "?tab=overdue")
    assert listed(html, waiting)
    assert "Overdue</span>" in html
    assert "was due" in html


@pytest.mark.parametrize(
    ("query", "there"),
    [
        ("missing=compliance", True),
        ("missing=model-risk", False),
        ("due=week", False),
        ("state=open", True),
        ("state=rejected", False),
        ("department=engineering", True),
        ("department=clinical", False),
        ("tier=nonsense&due=never&state=x&missing=y", True),
        ("page=nonsense", True),
        ("department=%00", True),
    ],
)
def test_the_filters(company: Company, query: str, there: bool) -> None:
    Review.objects.filter(pk=company.review_open.pk).update(
        due_at=timezone.now() + timedelta(days=20)
    )
    assert listed(page(company.carla, f"?tab=waiting&{query}"), company.review_open) is there


def test_the_page_asks_no_more_for_more_reviews(company: Company) -> None:
    client = Client()
    client.force_login(company.carla)

    def asked() -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            client.get("/reviews?tab=waiting")
        return len(queries)

    asked()
    before = asked()
    review = Review.objects.get(pk=company.review_open.pk)
    for number in range(30):
        review.pk, review.subject_id = None, str(10_000 + number)
        review._state.adding = True
        review.save()
    assert asked() == before
    html = client.get("/reviews?tab=waiting&page=2").content.decode()
    assert "26–" in html


def test_the_api_asks_the_same(company: Company) -> None:
    carla, milo = Api(company.carla), Api(company.milo)
    waiting = company.review_open.pk

    def ids(api: Api, **query: str) -> list[int]:
        return [review["id"] for review in api.get("reviews", **query).body["results"]]

    assert ids(carla, awaiting="me") == [waiting]
    assert ids(milo, awaiting="me") == []
    assert waiting in ids(milo, missing="compliance")
    assert waiting not in ids(milo, missing="model-risk")
    assert waiting not in ids(carla, due="overdue")
    Review.objects.filter(pk=waiting).update(due_at=timezone.now() - timedelta(days=1))
    assert ids(carla, due="overdue", department="engineering") == [waiting]
    assert ids(carla, department="clinical", tier="limited") == []
    problem_of(carla.get("reviews", due="never"), 400)
    problem_of(carla.get("reviews", awaiting="you"), 400)
    followed = carla.get("reviews", due="overdue", page_size="1")
    assert followed.status_code == 200
