"""`assay-client`, built from the OpenAPI document, and its layer for notebooks."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import transaction

from governance.keys.services import access_token_create
from governance.people.models import Person
from registry.evaluations.models import Evaluation
from registry.versions.models import Model
from tests.proofs import fresh_proof
from tests.unit.assay.portal_data import Company, tell_story

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
ROOT = Path(__file__).resolve().parents[2]
METHODS = ("get", "post", "put", "patch", "delete", "head")


def test_the_client_has_every_operation_and_typed_answers(
    wheel: Path,
    policy: object,
    redis: object,
    person: Callable[..., Person],
    department: Callable[..., object],
    live_server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document = json.loads((ROOT / "client" / "openapi.json").read_text())
    operations = {
        operation["operationId"]
        for path, methods in document["paths"].items()
        # Nodes alone call the others.
        if path.startswith("/api/")
        for method, operation in methods.items()
        if method in METHODS
    }
    modules = zipfile.ZipFile(wheel).namelist()
    assert operations <= {Path(module).stem for module in modules if "/api/" in module}
    assert "assay_client/py.typed" in modules

    monkeypatch.syspath_prepend(wheel)
    from assay_client import AuthenticatedClient
    from assay_client.api.models import model_get, models_get, models_post
    from assay_client.models import ModelAnswer, NewModelRequest, Problem

    department("clinical")
    _, token = access_token_create(person=person("Ada", "admin"), name="t", proof=fresh_proof())
    client = AuthenticatedClient(live_server.url, token=token)
    body = NewModelRequest(name="notes", department="clinical", task="embeddings")
    created = models_post.sync(client=client, body=body)
    assert isinstance(created, ModelAnswer)
    assert (created.name, created.created_at.tzinfo is not None) == ("notes", True)
    page = models_get.sync(client=client)
    assert [model.name for model in page.results] == ["notes"]
    refusal = model_get.sync(client=client, name="none")
    assert isinstance(refusal, Problem)
    assert refusal.status == 404
    assert "does not exist, or you may not see it" in refusal.detail


@pytest.fixture
def company(redis: object) -> Company:
    with transaction.atomic():
        return tell_story()


@pytest.fixture
def notebook(
    wheel: Path, company: Company, live_server: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A lead's connection, as after the first cell of a notebook."""
    monkeypatch.syspath_prepend(wheel)
    from assay_client.notebook import Assay

    _, token = access_token_create(person=company.enzo, name="t", proof=fresh_proof())
    # The server's first answer takes long on a busy machine.
    return Assay(live_server.url, token, timeout=httpx.Timeout(300))


def test_a_notebook_follows_jobs(
    notebook: Any, company: Company, capsys: pytest.CaptureFixture[str]
) -> None:
    from assay_client.notebook import JobFailed

    job = notebook.job(company.done.pk).wait()
    bar = capsys.readouterr().err
    assert "Adapt docstring-writer: 100%" in bar
    assert "320/320" in bar
    assert job.state == "succeeded"
    curves = job.curves()
    assert list(curves.index[:3]) == [0, 5, 10]
    assert {"loss", "validation_loss"} <= set(curves.columns)

    with pytest.raises(JobFailed, match="The dataset has no column label") as failed:
        notebook.job(company.failed.pk).wait(progress=False)
    assert failed.value.job.id == company.failed.pk
    assert capsys.readouterr().err == ""
    with pytest.raises(TimeoutError, match="it is running"):
        notebook.job(company.running.pk).wait(timeout_s=0)
    assert "120/320" in capsys.readouterr().err
    assert notebook.job(company.running.pk).cancel().cancel_requested
    assert len(notebook.jobs(state="failed").frame()) == 1


def test_a_notebook_shows_data_frames(notebook: Any, company: Company) -> None:
    frame = notebook.evaluations(model="docstring-writer").frame()
    assert set(frame["metrics.perplexity"]) == {9.61, 11.2}
    assert set(frame["version_id"]) == {company.first.pk, company.second.pk}
    assert str(frame["created_at"].dtype).startswith("datetime64")
    evaluation = Evaluation.objects.get(version=company.second)
    perplexity = notebook.metrics(evaluation.pk).loc["perplexity"]
    assert (perplexity["value"], perplexity["baseline"]) == (9.61, 19.7)
    assert perplexity["low"] < 9.61 < perplexity["high"]
    assert (perplexity["gate"], perplexity["passed"]) == ("<= 12.0", True)

    (live,) = notebook.releases(state="approved")
    assert (live.deployment_name, live.version.id) == ("docstring-writer", company.first.pk)
    assert notebook.release(live.id).review is not None
    with pytest.raises(ValueError, match=r"state is one of .*approved.*, not 'aproved'"):
        notebook.releases(state="aproved")
    days = notebook.usage_by_day(days=30, by="deployment").frame()
    assert days["requests"].sum() > 0
    assert "<table" in notebook.usage(limit=5)._repr_html_()
    assert len(notebook.jobs(kind="index").frame()) == 0

    Model.objects.bulk_create(
        Model(
            name=f"net-{number}", department=company.departments["engineering"],
            task="embeddings", created_by=company.enzo,
        )
        for number in range(120)
    )  # fmt: skip
    assert len(notebook.models(task="embeddings", limit=None)) == 120
    assert len(notebook.models(task="embeddings", limit=110)) == 110


def test_a_notebook_creates_data_and_raises_refusals(notebook: Any) -> None:
    import pandas
    from assay_client.notebook import RequestRefused

    where = {"department": "engineering", "task": "text-classification"}
    notebook.create_dataset(name="desk", classification="internal", license="CC0-1.0", **where)
    rows = [{"text": f"Where is document {n}?", "label": "question"} for n in range(10)]
    rows += [{"text": f"Document {n} is on the shelf.", "label": "answer"} for n in range(10)]
    first = notebook.add_rows("desk", rows)
    second = notebook.add_rows("desk", pandas.DataFrame(rows[:-1]))
    assert [first.rows, second.rows] == [20, 19]
    assert [each.id for each in notebook.dataset_versions("desk")] == [second.id, first.id]
    notebook.create_model(name="sorter", **where)
    gate = {"model": "sorter", "dataset": "desk", "metric": "accuracy", "comparator": ">="}
    notebook.set_gate(threshold=0.8, **gate)
    assert list(notebook.gates(model="sorter").frame()["threshold"]) == [0.8]

    with pytest.raises(RequestRefused, match="sorter") as refused:
        notebook.create_model(name="sorter", **where)
    assert refused.value.problem.status == 409
    with pytest.raises(RequestRefused, match="text"):
        notebook.add_rows("desk", [{"sentence": "No text."}])
