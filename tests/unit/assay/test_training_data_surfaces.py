"""A result on training data, and one of cut rows, is marked on every screen and in every answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from django.test import Client

from registry.evaluations.models import Evaluation
from tests.unit.assay.api_support import Api
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import signed_in
from tests.unit.assay.test_review_comparison import words

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
MARK, CUT = "Training data", "7 rows cut"


def mark(*evaluations: Evaluation) -> None:
    """Make results of training data, with rows that were cut."""
    for each in evaluations:
        each.details = {**each.details, "rows_cut": 7}
        each.on_training_data = True
        each.save(update_fields=["details", "on_training_data"])


def screen(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, address
    return answer.content.decode()


def tags(client: Client, address: str) -> set[str]:
    """Return the words of all tags of a page."""
    found = re.findall(r'<span class="tag tag-warn">(.*?)</span>', screen(client, address), re.S)
    return {words(each) for each in found}


def marks(value: Any) -> list[str]:
    """Return the names of all members that say so, wherever they are in an answer."""
    if isinstance(value, Mapping):
        own = [name for name, each in value.items() if "on_training_data" in name and each is True]
        return own + [name for each in value.values() for name in marks(each)]
    return [name for each in value for name in marks(each)] if isinstance(value, list) else []


def test_every_screen_with_a_result_marks_it(company: Company) -> None:
    version, review = company.second, company.review_open
    screens = {
        f"/versions/{version.pk}": company.enzo,
        "/models/docstring-writer": company.enzo,
        "/catalog/text-generation": company.enzo,
        "/models/docstring-writer/compare?new=2&old=1": company.enzo,
        f"/reviews/{review.pk}?tab=changes": company.carla,
        f"/reviews/{review.pk}?tab=evidence": company.carla,
        f"/versions/{version.pk}/readiness": company.enzo,
    }
    pages = {address: tags(signed_in(person), address) for address, person in screens.items()}
    assert [address for address, found in pages.items() if found & {MARK, CUT}] == []
    mark(version.evaluations.get(), company.first.evaluations.get())
    pages = {address: tags(signed_in(person), address) for address, person in screens.items()}
    assert [address for address, found in pages.items() if MARK not in found] == []
    # Gates alone have no rows.
    assert {address for address, found in pages.items() if CUT not in found} == {
        "/models/docstring-writer",
        f"/versions/{version.pk}/readiness",
    }


def test_a_result_is_marked_on_the_older_side_of_a_comparison_too(company: Company) -> None:
    address = "/models/docstring-writer/compare?new=2&old=1"
    mark(company.first.evaluations.get())
    shown = words(screen(signed_in(company.enzo), address))
    assert f"V1 {MARK} {CUT} v2" in shown
    found = Api(company.carla).get(f"releases/{company.waiting.pk}/comparison").body
    (measured,) = found["measured"]
    assert (measured["on_training_data"], measured["rows_cut"]) == (False, 0)
    assert (measured["live_on_training_data"], measured["live_rows_cut"]) == (True, 7)


def test_no_trend_is_drawn_of_training_data(company: Company) -> None:
    pages = {
        f"/reviews/{company.review_open.pk}?tab=changes": company.carla,
        "/models/docstring-writer": company.enzo,
    }
    for address, person in pages.items():
        assert "trend-data" in screen(signed_in(person), address)
    mark(company.first.evaluations.get())
    for address, person in pages.items():
        assert "trend-data" not in screen(signed_in(person), address)


def test_every_answer_with_a_result_marks_it(company: Company) -> None:
    version = company.second
    mark(version.evaluations.get(), company.first.evaluations.get())
    enzo, carla = Api(company.enzo), Api(company.carla)
    answers = {
        "evaluations": enzo.get("evaluations"),
        "one evaluation": enzo.get(f"evaluations/{version.evaluations.get().pk}"),
        "a version": enzo.get(f"versions/{version.pk}"),
        "readiness": enzo.get(f"versions/{version.pk}/readiness"),
        "a comparison": carla.get(f"releases/{company.waiting.pk}/comparison"),
    }
    assert [name for name, answer in answers.items() if not marks(answer.body)] == []
