"""Changes since a person last looked, on pages and on the first page."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import F
from django.test import Client

from governance.looks.models import Look, LookKind
from governance.policy.models import PolicyState, PolicyVersion
from governance.reviews.threads.models import ReviewThread
from tests.unit.assay.portal_data import Company, copied
from tests.unit.assay.test_portal_pages import inline_in, queries, signed_in
from tests.unit.policy_support import install_rules

pytestmark = pytest.mark.django_db
NEWS = "Since you last looked"
# With the scope of row security, which `test_portal_pages` calls SCOPE.
QUERIES = 12


def text_of(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    page = response.content.decode()
    assert inline_in(page) == []
    return page


def day_passes() -> None:
    Look.objects.update(seen_at=F("seen_at") - timedelta(days=1))


def say(company: Company) -> None:
    on = {"digest": company.review_open.digest, "round": company.review_open.round}
    thread = ReviewThread.objects.create(
        review=company.review_open, anchor_kind="general", opened_by=company.enzo, **on
    )
    thread.comments.create(person=company.enzo, text="Measured again.", **on)


def test_a_review_shows_what_others_said_since(company: Company) -> None:
    carla, address = signed_in(company.carla), f"/reviews/{company.review_open.pk}"
    assert NEWS not in text_of(carla, address)
    say(company)
    # A second view within minutes belongs to the same look.
    assert NEWS not in text_of(carla, address)
    day_passes()
    say(company)
    page = text_of(carla, address)
    assert NEWS in page
    assert "2 comments by Enzo Engineering." in page
    assert NEWS in text_of(carla, f"{address}?tab=evidence")
    # A person's own comments are not new to that person.
    enzo = signed_in(company.enzo)
    text_of(enzo, address)
    day_passes()
    news = text_of(enzo, address).partition(NEWS)[2].partition("</ul>")[0]
    assert "Milo Model-Risk approved." in news
    assert "Enzo" not in news


def test_a_model_shows_its_new_versions(company: Company) -> None:
    vera, address = signed_in(company.vera), "/models/docstring-writer"
    assert NEWS not in text_of(vera, address)
    day_passes()
    copied(company.second, number=9, job_id=None)
    assert "v9." in text_of(vera, address)


def test_the_policy_shows_which_rules_changed(company: Company) -> None:
    enzo = signed_in(company.enzo)
    text_of(enzo, "/policy")
    day_passes()
    assert NEWS not in text_of(enzo, "/policy")
    day_passes()
    rules = PolicyVersion.objects.get(state=PolicyState.ACTIVE).rules
    install_rules([{**rules[0], "description": "Other words"}, *rules[2:]])
    page = text_of(enzo, "/policy")
    assert "Policy 2 replaced policy 1." in page
    assert f"Changed: {rules[0]['id']}." in page
    assert f"Removed: {rules[1]['id']}." in page


def test_the_first_page_lists_what_changed_and_its_queries_do_not_grow(company: Company) -> None:
    carla, address = signed_in(company.carla), "/overview/changed"
    assert "Nothing new" in text_of(carla, address)
    for page in (f"/reviews/{company.review_open.pk}", "/models/docstring-writer", "/policy"):
        text_of(carla, page)
    assert "Nothing new" in text_of(carla, address)
    few = queries(carla, address)
    say(company)
    page = text_of(carla, address)
    assert f'href="/reviews/{company.review_open.pk}"' in page
    day_passes()
    Look.objects.bulk_create(
        Look(
            person=company.carla,
            kind=LookKind.REVIEW,
            reference=str(review),
            seen_at=Look.objects.first().seen_at,  # type: ignore[union-attr]
        )
        for review in range(10_000, 10_020)
    )
    assert queries(carla, address) == few == QUERIES
    # Without her roles she may not see the review.
    company.carla.role_assignments.all().delete()
    assert "Nothing new" in text_of(carla, address)
