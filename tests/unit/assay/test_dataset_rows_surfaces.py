"""Rows of a dataset version by API: masked as on its page, searched, sorted and paged."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from governance.audit.models import AuditEvent
from registry.datasets.models import DatasetVersion
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_datasets import add, talk

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
# Pinned: a rise is a decision, not an accident.
QUERIES = 8


@pytest.fixture
def version(company: Company) -> DatasetVersion:
    """Create a version of 30 rows without signs of personal data."""
    return add(company.enzo, "docstrings-train", *(talk(f"Question {n:02}") for n in range(1, 31)))


def texts(page: Any) -> list[str]:
    return [row["cells"][0]["parts"][0]["text"] for row in page["rows"]]


def test_pages_reach_every_row_in_constant_queries(
    company: Company, version: DatasetVersion
) -> None:
    enzo, path = Api(company.enzo), f"dataset-versions/{version.pk}/rows"
    first = enzo.get(path).body
    assert (first["columns"], first["total"], first["matches"]) == (["messages"], 30, 30)
    assert (first["row"], first["next_row"], first["previous_row"]) == (1, 21, None)
    assert [part["role"] for part in first["rows"][0]["cells"][0]["parts"]] == ["user", "assistant"]
    with CaptureQueriesContext(connection) as queries:
        second = enzo.get(path, row=21).body
    assert len(queries) <= QUERIES
    assert [row["number"] for row in second["rows"]] == list(range(21, 31))
    assert (second["next_row"], second["previous_row"]) == (None, 1)


def test_rows_are_searched_and_sorted_and_what_is_unknown_is_refused(
    company: Company, version: DatasetVersion
) -> None:
    enzo, path = Api(company.enzo), f"dataset-versions/{version.pk}/rows"
    found = enzo.get(path, q="question 1", sort="messages", order="desc").body
    assert (found["matches"], found["sorts"]) == (10, ["messages"])
    assert texts(found)[0].startswith("Question 1")
    problem = problem_of(enzo.get(path, sort="length"), 404)
    assert problem["hint"] == "Sort by messages."
    problem_of(enzo.get(path, row=0), 400)
    problem_of(enzo.get(path, page=2), 400)
    problem_of(Api(company.fay).get(path), 404)


def test_masked_rows_are_shown_to_those_who_may_see_them_and_that_is_an_event(
    company: Company,
) -> None:
    version = add(company.enzo, "docstrings-train", talk("Write to ann@example.org."))
    path = f"dataset-versions/{version.pk}/rows"
    masked = Api(company.vera).get(path).body
    assert (masked["masked"], masked["unmasked"]) == (["messages"], False)
    assert texts(masked) == ["••••• •• •••@•••••••.•••."]
    problem_of(Api(company.vera).get(path, q="ann"), 404)
    problem_of(Api(company.vera).post(f"{path}/unmask"), 403)
    problem_of(Api(company.fay).post(f"{path}/unmask"), 404)
    answer = Api(company.enzo).post(f"{path}/unmask", {"q": "ann@"})
    assert answer.headers["Cache-Control"] == "no-store"
    assert texts(answer.body) == ["Write to ann@example.org."]
    event = AuditEvent.objects.get(action="dataset:unmask", outcome="allowed")
    assert (event.actor_id, event.subject_id) == (str(company.enzo.pk), str(version.pk))
    assert b"ann@" not in bytes(event.canonical)
