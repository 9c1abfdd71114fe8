"""Evaluations of hosted versions: real runs, which reach a real provider through an egress worker
alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from governance.people.models import Person
from governance.quotas.models import BudgetHold
from registry.datasets.models import DatasetVersion
from registry.evaluations.models import Evaluation
from registry.versions.models import ModelVersion, VersionState
from tests.stored import stored_file
from tests.unit.registry.hosted_world import GENERATE, hosted_version
from tests.unit.workers import company
from tests.unit.workers.provider import Behavior, Provider, Received, replies
from tests.waiting import wait_until
from workers.control.direct_jobs import DirectJobs, StoreFiles
from workers.control.egress_jobs import EgressJobs
from workers.egress.connections import EgressRules
from workers.egress.credentials import NoCredentials
from workers.egress.evaluations import Evaluations
from workers.egress.loop import EgressLoop
from workers.engines.hosted.engine import HostedEngine
from workers.jobs.finishing import job_finish
from workers.jobs.models import Job, JobState
from workers.jobs.requests import evaluate_request
from workers.jobs.services import job_cancel

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.torch]
WORKER = "egress@a"
ROWS = [("Name a city.", "Paris"), ("Name a river.", "Rhine"), ("Name a color.", "blue")]


def answer(text: str, model: str = "test-1", **usage: int) -> dict[str, Any]:
    return {
        "model": model,
        "system_fingerprint": "fp_7",
        "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, **usage},
    }


def conversations(classification: str = "public") -> DatasetVersion:
    data = company.data(f"chats-{classification}", GENERATE, classification=classification)
    content = "".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": reply},
                ]
            }
        )
        + "\n"
        for question, reply in ROWS
    ).encode()

    data.digest, data.rows = hashlib.sha256(content).hexdigest(), len(ROWS)
    data.size_bytes = len(content)
    file = stored_file(data.digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    data.save()
    return data


def hosted(origin: str, **changes: Any) -> ModelVersion:
    changes = {"model": "test-1", "credential": "", "base_url": f"{origin}/v1", **changes}
    company.developer()
    return hosted_version(company.model("gpt", GENERATE), Person.objects.earliest("pk"), **changes)


def requested(version: ModelVersion) -> Job:
    return evaluate_request(
        actor=company.developer(), version=version, dataset_version=conversations()
    )


@contextmanager
def evaluating() -> Iterator[Evaluations]:
    """The evaluations of an egress worker, without its threads."""
    loop = EgressLoop(EgressRules(internal_hosts=frozenset({"localhost"})))

    def engine(folder: Path, job_id: str) -> HostedEngine:
        return HostedEngine(folder, loop=loop, credentials=NoCredentials(), job_id=job_id)

    evaluations = Evaluations(EgressJobs(), StoreFiles(), worker=WORKER, engine=engine)
    try:
        yield evaluations
    finally:
        evaluations.close()
        loop.close()


@contextmanager
def provided(behave: Behavior) -> Iterator[Provider]:
    provider = Provider(behave)
    try:
        yield provider
    finally:
        provider.close()


def attempt(evaluations: Evaluations) -> None:
    claimed = EgressJobs().claim_first(WORKER)
    assert claimed is not None
    evaluations.run(*claimed)


def test_a_hosted_version_is_evaluated_through_the_egress_worker() -> None:
    with provided(replies(answer("Paris"))) as provider, evaluating() as evaluations:
        version = hosted(provider.origin)
        job = requested(version)
        assert DirectJobs().claim(str(job.pk), "compute@a") is None
        attempt(evaluations)
        job.refresh_from_db()
        assert job.state == JobState.FINISHING, job.error
        job_finish(job.pk)
        evaluation = Evaluation.objects.get(version=version)
        bodies = [each.json for each in provider.received]
    assert [each["messages"][-1]["content"] for each in bodies] != []
    assert {each["messages"][-1]["content"] for each in bodies} == {row[0] for row in ROWS}
    assert {(each["temperature"], each["max_tokens"]) for each in bodies} == {(0.0, 64)}
    assert len(bodies) == len(ROWS)
    assert set(evaluation.metrics) == {"chrf"}
    assert 0 < evaluation.metrics["chrf"] < 100
    assert evaluation.details["engine"] == "hosted"
    assert evaluation.details["provider"] == {
        "answers": 3, "prompt_tokens": 27, "completion_tokens": 6, "estimated": 0,
        "models": ["test-1"], "fingerprints": ["fp_7"],
    }  # fmt: skip
    assert evaluation.details["environment"] == {"hosted": ""}
    assert "reference" not in evaluation.details
    hold = BudgetHold.objects.get()
    assert (hold.prompt_tokens, hold.completion_tokens, hold.device_ms) == (27, 6, 0)
    # 27 tokens of 2.5 and 6 of 10 micro-units, rounded up.
    assert hold.reserved_micro > 128


def test_an_egress_worker_looks_for_evaluations_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.egress.evaluations.CLAIM_S", 0.05)
    with provided(replies(answer("Rhine"))) as provider, evaluating() as evaluations:
        job = requested(hosted(provider.origin))
        evaluations.start()
        wait_until(lambda: Job.objects.get(pk=job.pk).state == JobState.FINISHING)


def test_a_provider_that_limits_its_requests_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.egress.relays.FIRST_WAIT_S", 0.01)
    limited = replies({"error": {"message": "slow down"}}, status="429 Too Many Requests")
    busy = replies({}, status="503 Service Unavailable")
    fine, turns = replies(answer("blue")), iter([limited, busy])

    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        await next(turns, fine)(received, writer)

    with provided(behave) as provider, evaluating() as evaluations:
        job = requested(hosted(provider.origin))
        attempt(evaluations)
        job.refresh_from_db()
        assert job.state == JobState.FINISHING, job.error
        assert len(provider.received) == len(ROWS) + 2


@pytest.mark.parametrize(
    ("behavior", "sentence"),
    [
        (
            replies(answer("x", model="test-2")),
            "answered as test-2 fp_7, which the approved description",
        ),
        (
            replies({"error": {"message": "no such field"}}, status="400 Bad Request"),
            "The provider refused the request: no such field",
        ),
        (replies({}, status="401 Unauthorized"), "The provider refused the credential"),
    ],
)
def test_a_provider_that_differs_or_fails_ends_it_with_the_reason(
    behavior: Behavior, sentence: str
) -> None:
    with provided(behavior) as provider, evaluating() as evaluations:
        job = requested(hosted(provider.origin))
        attempt(evaluations)
        job.refresh_from_db()
        assert (job.state, sentence in job.error) == (JobState.FAILED, True), job.error
        assert not Evaluation.objects.exists()


async def _never(received: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@contextmanager
def unanswered() -> Iterator[tuple[Provider, Job]]:
    """An evaluation whose provider has its requests and does not answer."""
    with provided(_never) as provider, evaluating() as evaluations:
        job = requested(hosted(provider.origin))

        def run() -> None:
            try:
                attempt(evaluations)
            finally:
                connections.close_all()

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: provider.received)
        yield provider, job
        thread.join()
        job.refresh_from_db()


def test_a_canceled_evaluation_ends_its_exchanges() -> None:
    with unanswered() as (provider, job):
        job_cancel(actor=company.developer(), job_id=job.pk)
        wait_until(provider.closed.is_set)
    assert job.state == JobState.CANCELED


def test_a_recall_ends_a_running_evaluation() -> None:
    with unanswered() as (provider, job):
        ModelVersion.objects.filter(pk=job.spec["version"]).update(state=VersionState.RECALLED)
        wait_until(provider.closed.is_set)
    assert job.state == JobState.FAILED
    assert "is recalled; nothing more is sent to its provider" in job.error


def test_more_tokens_than_were_reserved_end_it() -> None:
    turns = iter([replies(answer("Paris", completion_tokens=100_000))])

    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        await next(turns, _never)(received, writer)

    with provided(behave) as provider, evaluating() as evaluations:
        job = requested(hosted(provider.origin))
        attempt(evaluations)
        job.refresh_from_db()
    assert BudgetHold.objects.get().completion_tokens >= 100_000
    assert job.state == JobState.FAILED
    assert "more than was reserved" in job.error
