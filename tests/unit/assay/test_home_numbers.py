"""Numbers of the first page by role, with their trend."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from assay.portal.home_numbers import compared, sparkline
from governance.usage.models import UsageRecord
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import inline_in, queries, signed_in

pytestmark = pytest.mark.django_db
# With the scope of row security, which `test_portal_pages` calls SCOPE.
QUERIES = {"ada": 25, "carla": 13, "enzo": 25}
TITLES = {
    "ada": ["Requests, 7 days", "Failed requests, 7 days", "Jobs ended, 7 days", "Denied actions"],
    "carla": ["Reviews closed this week", "Median time to a decision"],
    "enzo": ["Requests, 7 days", "Failed requests, 7 days", "Jobs ended, 7 days", "Denied actions"],
    "vera": ["Requests, 7 days", "Failed requests, 7 days", "Jobs ended, 7 days"],
}


def test_each_role_gets_its_own_numbers(company: Company) -> None:
    for who, titles in TITLES.items():
        page = signed_in(company.people[who]).get("/overview/numbers").content.decode()
        assert inline_in(page) == []
        assert page.count("<polyline") == page.count('<span class="k">') == len(titles), who
        assert [title for title in titles if title not in page] == [], who


def test_usage_is_compared_with_the_week_before(company: Company) -> None:
    now = timezone.now()
    UsageRecord.objects.bulk_create(
        UsageRecord(
            request_id=f"n{index}",
            occurred_at=now - timedelta(days=age),
            department="clinical",
            deployment="ward-notes",
            endpoint="/v1/chat/completions",
            outcome=outcome,
            cost_micro=1_250_000,
        )
        for index, (age, outcome) in enumerate(
            [(0, "ok"), (1, "ok"), (6, "failed"), (7, "ok"), (13, "ok"), (20, "ok")]
        )
    )
    page = signed_in(company.clara).get("/overview/numbers").content.decode()
    assert "+50% vs. the 7 days before" in page
    assert "33.3%" in page
    assert "0.0% in the 7 days before" in page
    assert "3.75" in page
    assert "Requests by day, oldest first: 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1" in page
    other = signed_in(company.fay).get("/overview/numbers").content.decode()
    assert "none in the 7 days before either" in other


def test_the_first_page_loads_numbers_for_those_whose_roles_have_any(company: Company) -> None:
    for who in TITLES:
        assert "/overview/numbers" in signed_in(company.people[who]).get("/").content.decode()
    company.vera.role_assignments.all().delete()
    assert "/overview/numbers" not in signed_in(company.vera).get("/").content.decode()


def test_queries_of_the_numbers_do_not_grow(company: Company) -> None:
    counts = {}
    for who in QUERIES:
        client = signed_in(company.people[who])
        client.get("/overview/numbers")
        counts[who] = queries(client, "/overview/numbers")
    assert counts == QUERIES


def test_a_change_is_told_in_percent_and_a_line_keeps_within_its_box() -> None:
    assert compared(3, 2, "May") == "+50% vs. May"
    assert compared(1, 2, "May") == "-50% vs. May"
    assert compared(2, 2, "May") == "same as May"
    assert compared(5_000, 6, "May") == "6 in May"
    assert compared(0, 0, "May") == "none in May either"
    assert sparkline([0, 5, 10]) == "0.0,22.0 50.0,12.0 100.0,2.0"
    assert sparkline([0, 0]) == "0.0,22.0 100.0,22.0"
