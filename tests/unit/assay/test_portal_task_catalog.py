"""The pages of the task catalog, and the filters of the list of models."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from registry.catalog import TASKS
from registry.catalog.discovery import RejectedEntry
from registry.evaluations.models import Evaluation
from tests import proofs
from tests.plug_ins import left_out, refused
from tests.unit.assay.portal_data import Company, tell_story

__all__ = ["refused"]

pytestmark = pytest.mark.sweep


@pytest.fixture
def company(db: None) -> Company:
    return tell_story()


@pytest.fixture
def client(company: Company) -> Client:
    return proofs.signed_in(Client(), company.devi)


def text(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_the_catalog_lists_every_task_under_its_family(client: Client) -> None:
    page = text(client, "/catalog")
    for task in TASKS.values():
        assert f"/catalog/{task.name}" in page
        assert task.family.value in page


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_task_has_a_page_with_its_endpoints_recipes_and_metrics(
    client: Client, name: str
) -> None:
    page, task = text(client, f"/catalog/{name}"), TASKS[name]
    assert task.description.replace("'", "&#x27;") in page
    for endpoint in task.endpoints:
        assert endpoint.path in page
    for each in (*task.recipes, *task.metrics):
        assert each.title in page


def test_a_page_shows_models_of_the_task_with_their_newest_measurement(
    client: Client, company: Company
) -> None:
    page = text(client, "/catalog/text-generation")
    assert "/models/docstring-writer" in page
    newest = Evaluation.objects.filter(version__model__name="docstring-writer").latest("pk")
    assert f"{newest.metrics['perplexity']:.3f}" in page


def test_models_of_other_departments_are_not_shown(company: Company) -> None:
    outsider = proofs.signed_in(Client(), company.fay)
    assert "docstring-writer" not in text(outsider, "/catalog/text-generation")


def test_a_task_whose_package_fails_is_shown_with_the_reason(
    client: Client, refused: list[RejectedEntry]
) -> None:
    refused.append(left_out("mine", "RuntimeError: needs a license file"))
    assert "needs a license file" in text(client, "/catalog")
    assert "needs a license file" in text(client, "/catalog/mine")
    assert client.get("/catalog/nothing").status_code == 404


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("family=Language", True),
        ("family=Vision", False),
        ("family=%00", True),
        ("task=text-generation", True),
        ("task=rerank", False),
        ("task=nothing", True),
        ("license=Apache-2.0", True),
        ("license=GPL-3.0", False),
        ("department=engineering", True),
        ("department=media", False),
        ("q=DOCSTRING", True),
        ("q=other", False),
    ],
)
def test_models_are_filtered(client: Client, query: str, shown: bool) -> None:
    assert ("/models/docstring-writer" in text(client, f"/models?{query}")) is shown


def test_the_catalog_belongs_to_models_in_the_navigation(client: Client) -> None:
    for address in ("/catalog", "/catalog/rerank"):
        (here,) = re.findall(
            r'href="([^"]*)" aria-current="(?:page|true)"> ?<svg', text(client, address)
        )
        assert here == "/models"
