"""Tasks whose package is broken or gone: everything else works, and pages say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from assay.api.inference_description import inference_description
from assay.cli.doctor import check_tasks
from assay.cli.findings import CheckFailed
from registry.catalog import get_task, task_catalog
from registry.catalog.code import CODES
from registry.catalog.declaration import Task
from registry.catalog.discovery import RejectedEntry
from registry.catalog.routes import routes
from registry.intake.models import Intake
from registry.versions.models import Model
from tests.plug_ins import left_out, refused
from tests.unit.assay.api_support import Api
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.portal_data import Company, tell_story
from tests.unit.assay.test_portal_pages import LISTS, pages_of, signed_in

__all__ = ["refused", "stage"]

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

REASON = "ModuleNotFoundError: No module named 'torchlight'"


@pytest.fixture
def company(db: None) -> Company:
    return tell_story()


@pytest.fixture
def catalog(refused: list[RejectedEntry]) -> Iterator[dict[str, Task]]:
    """Tasks by name, which a test may change. What is cached about them is forgotten before and
    after it."""
    tasks = task_catalog().tasks
    before, codes = dict(tasks), dict(CODES)
    cached: tuple[Any, ...] = (routes, inference_description)
    for cache in cached:
        cache.cache_clear()
    yield tasks
    tasks.clear()
    tasks.update(before)
    CODES.clear()
    CODES.update(codes)
    for cache in cached:
        cache.cache_clear()


@pytest.fixture
def broken(catalog: dict[str, Task], refused: list[RejectedEntry]) -> str:
    """The task of the company's models, whose package cannot be loaded any more."""
    del catalog["text-generation"], CODES["text-generation"]
    refused.append(left_out("text-generation", REASON))
    return "text-generation"


@pytest.fixture
def gone(catalog: dict[str, Task]) -> None:
    """Every task: no package that provides one is installed."""
    catalog.clear()
    CODES.clear()


def test_every_page_opens_without_any_task(company: Company, gone: None) -> None:
    for person in (company.ada, company.carla, company.enzo):
        client = signed_in(person)
        for address in (*LISTS, *pages_of(company), "/models/new", "/datasets/new"):
            assert client.get(address).status_code == 200, address
    assert signed_in(company.ada).get("/health").status_code == 200


def test_pages_of_models_versions_datasets_and_deployments_give_the_reason(
    company: Company, broken: str
) -> None:
    client = signed_in(company.enzo)
    for address in (
        "/models/docstring-writer",
        f"/versions/{company.second.pk}",
        "/datasets/docstrings-train",
        f"/deployments/{company.deployment.pk}",
    ):
        page = client.get(address).content.decode()
        assert "The task text-generation is unavailable" in page, address
        assert "torchlight" in page, address
    page = client.get("/models/docstring-writer").content.decode()
    assert "/models/docstring-writer/fine-tune" not in page
    for action in ("fine-tune", "gates"):
        refused = client.get(f"/models/docstring-writer/{action}")
        assert refused.status_code == 400, action
        assert "torchlight" in refused.content.decode(), action


def test_operations_list_tasks_with_their_package_and_what_is_unavailable(
    company: Company, broken: str
) -> None:
    page = signed_in(company.ada).get("/health").content.decode()
    assert "text-generation of no package is left out" in page
    assert "torchlight" in page
    assert "text-classification · assay 0.1.0 · metered in tokens" in page
    with pytest.raises(CheckFailed) as found:
        check_tasks()
    assert "torchlight" in found.value.detail


def test_the_api_lists_unavailable_tasks_with_the_reason(company: Company, broken: str) -> None:
    listed = {task["name"]: task for task in Api(company.enzo).get("tasks").body}
    assert REASON in listed[broken]["unavailable"]
    assert listed[broken]["row_schema"] == {}
    assert listed["embeddings"]["unavailable"] == ""
    assert listed["embeddings"]["package"] == "assay 0.1.0"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("models", {"name": "another", "department": "engineering", "task": "text-generation"}),
        (
            "gates",
            {
                "model": "docstring-writer", "dataset": "docstrings-train", "metric": "perplexity",
                "comparator": "<=", "threshold": 3,
            },
        ),
    ],
)  # fmt: skip
def test_new_work_for_an_unavailable_task_is_refused_with_the_reason(
    company: Company, broken: str, path: str, body: dict[str, Any]
) -> None:
    before = Model.objects.count()
    answer = Api(company.enzo).post(path, body)
    assert answer.status_code == 400
    assert answer.body["code"] == "task_unavailable"
    assert "torchlight" in answer.body["detail"]
    assert Model.objects.count() == before


def test_files_for_a_model_of_an_unavailable_task_are_not_taken_in(
    company: Company, broken: str
) -> None:
    before = Intake.objects.count()
    answer = Api(company.enzo).upload(
        "intakes",
        {
            "model": "docstring-writer", "source": "a disk", "license": "MIT",
            "files": SimpleUploadedFile("config.json", b"{}"),
        },
    )  # fmt: skip
    assert (answer.status_code, answer.body["code"]) == (422, "task_unavailable")
    assert Intake.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_the_gateway_lists_models_of_an_unavailable_task_without_an_endpoint(
    stage: Stage, broken: str
) -> None:
    stage.deployment()
    stage.deployment("vectors", task="embeddings")
    client = stage.client(stage.key())
    listed = {model.id: model.to_dict() for model in client.models.list()}
    assert listed["writer"]["endpoint"] == ""
    assert listed["vectors"]["endpoint"] == get_task("embeddings").endpoint
