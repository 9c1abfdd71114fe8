"""A real adaptation from request to answer: tuned by a trainer, delivered, loaded by an engine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
from pathlib import Path

import pytest
from redis import Redis

from registry import store
from registry.datasets.models import DatasetVersion
from registry.manifests import Manifest
from registry.versions.models import ModelVersion
from tests.stored import stored_file
from tests.unit.workers import company
from tests.unit.workers.releases import release
from tests.unit.workers.sealed import Wire, answering
from workers.deployments.plans import load_plan
from workers.deployments.services import deployment_create
from workers.jobs import workspace
from workers.jobs.leases import job_claim
from workers.jobs.models import Job, JobState
from workers.jobs.orders import order_make
from workers.jobs.requests import evaluate_request, fine_tune_request
from workers.tasks.hosting import EngineHost
from workers.tasks.jobs import run, supervisor
from workers.wire import Done, InferenceRequest

pytestmark = [pytest.mark.torch, pytest.mark.django_db(transaction=True)]
GOOD, BAD = ["good", "fine", "great", "happy"], ["bad", "poor", "awful", "sad"]


def tiny_encoder(folder: Path) -> ModelVersion:
    """A BERT with one small layer and a vocabulary of a dozen words, in the store."""
    from tests.unit.workers.tiny import save_encoder

    save_encoder(folder, [*GOOD, *BAD])
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return company.version(company.model("tiny", "embeddings"), files=files)


def labelled_rows() -> DatasetVersion:
    rows = [
        {"text": f"{first} {second}", "label": label}
        for label, words in (("positive", GOOD), ("negative", BAD))
        for first in words
        for second in words
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    data = company.data("reviews", "text-classification")
    data.digest, data.size_bytes = hashlib.sha256(content).hexdigest(), len(content)
    data.save()
    file = stored_file(data.digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return data


def queued(tmp_path: Path) -> Job:
    return fine_tune_request(
        actor=company.developer(),
        model=company.model("sentiment", "text-classification"),
        base_version=tiny_encoder(tmp_path / "tiny"),
        method="full",
        dataset_version=labelled_rows(),
        hyperparameters={"epochs": 1, "batch_size": 8, "max_length": 16},
    )


def test_a_classifier_is_tuned_delivered_and_answers(redis: Redis, tmp_path: Path) -> None:
    job = queued(tmp_path)
    run(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FINISHING, job.error
    manifest = Manifest.from_json(job.result["manifest"])
    assert manifest.base_digest is None
    assert job.result["metrics"]
    made_with = job.result["parameters"]
    assert made_with["trainer"] == "tasks.text_classification.fine_tune:train"
    assert made_with["library_torch"] == importlib.metadata.version("torch")
    assert made_with["epochs"] == 1
    assert made_with["rows_cut"] == 0
    assert not workspace.inputs_folder(job.pk, 1).exists()
    assert job.events.exclude(data={}).exists()

    store.adopt(workspace.output_folder(job.pk, 1), manifest)
    tuned = ModelVersion.objects.create(
        model=company.model("sentiment", "text-classification"),
        number=1,
        kind="full",
        base_id=job.spec["base"],
        digest=manifest.digest,
        manifest=manifest.to_json(),
        size_bytes=manifest.size_bytes,
        created_by=job.created_by,
    )
    deployment = deployment_create(
        actor=company.developer(), release_id=release(tuned, name="sentiment").pk
    )
    host = EngineHost()
    host.load(load_plan(deployment))
    host.lease({deployment.pk: float("inf")})
    wire = Wire()
    request, seals = wire.open(
        InferenceRequest(
            request_id="r1",
            deployment_id=deployment.pk,
            deployment="sentiment",
            digest=tuned.digest,
            reply_stream="replies",
            inputs={"input": ["good great"]},
            deadline=time.time() + 60,
        )
    )
    with answering(redis, host) as answerer:
        answerer.answer(request, seals)
    host.close()
    [done] = wire.read(redis)
    assert isinstance(done, Done)
    assert done.results is not None
    assert {each["label"] for each in done.results[0]} == {"positive", "negative"}


def test_an_evaluation_trains_its_baseline_on_the_data_of_the_version(tmp_path: Path) -> None:
    job = queued(tmp_path)
    run(str(job.pk))
    job.refresh_from_db()
    manifest = Manifest.from_json(job.result["manifest"])
    store.adopt(workspace.output_folder(job.pk, 1), manifest)
    rows = DatasetVersion.objects.get(pk=job.spec["dataset_version"])
    tuned = ModelVersion.objects.create(
        model=company.model("sentiment", "text-classification"),
        number=1,
        kind="full",
        base_id=job.spec["base"],
        dataset_version=rows,
        digest=manifest.digest,
        manifest=manifest.to_json(),
        size_bytes=manifest.size_bytes,
        created_by=job.created_by,
    )
    evaluation = evaluate_request(actor=company.developer(), version=tuned, dataset_version=rows)
    run(str(evaluation.pk))
    evaluation.refresh_from_db()
    assert evaluation.state == JobState.FINISHING, evaluation.error
    linear, constant = evaluation.result["details"]["baselines"]
    assert evaluation.result["baseline_name"] == linear["name"]
    assert (linear["trained_on"], constant["trained_on"]) == (32, 0)
    assert not workspace.inputs_folder(evaluation.pk, 1).exists()


def test_data_that_was_changed_in_the_store_fails_the_job_for_good(tmp_path: Path) -> None:
    job = queued(tmp_path)
    file = stored_file(job.spec["dataset_digest"])
    file.write_bytes(file.read_bytes().replace(b"positive", b"negative", 1))
    run(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "data.jsonl has SHA-256" in job.error


def test_a_run_that_is_asked_to_stop_is_canceled(tmp_path: Path) -> None:
    job = queued(tmp_path)
    claim = job_claim(job_id=job.pk, worker="w1")
    assert claim is not None
    Job.objects.filter(pk=job.pk).update(cancel_requested=True)
    order = order_make(claim)
    supervisor().run(claim, order)
    job.refresh_from_db()
    assert (job.state, job.result) == (JobState.CANCELED, None)
