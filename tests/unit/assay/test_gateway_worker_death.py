"""A request whose worker dies fails within seconds, and is settled."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from assay.gateway.run import worker_watch
from tests.unit.assay.gateway_support import (
    DIGEST,
    Reply,
    Stage,
    lasting_heartbeat,
    say_hello,
    stage,
)
from tests.unit.assay.test_gateway_keys import CHAT, GOOD, Stream
from tests.waiting import PATIENCE_S, wait_until
from workers.deployments.models import Deployment, Replica
from workers.deployments.worker_keys import worker_key_register
from workers.wire import Delta, InferenceRequest, RequestStarted

pytestmark = pytest.mark.sweep

__all__ = ["stage"]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_watch, "CHECK_S", 0.02)
    monkeypatch.setattr(worker_watch, "PATIENCE_S", 0.3)


def missing(stage: Stage) -> dict[str, float]:
    return stage.application.gateway.start().worker_watch._missing


def second_worker(deployment: Deployment, public_key: str) -> None:
    """Another worker that has the deployment ready, and shows no sign of life."""
    worker_key_register(worker="second", public_key=public_key)
    Replica.objects.create(
        deployment=deployment,
        worker="second",
        state="ready",
        loaded_digest=DIGEST,
        heartbeat_at=lasting_heartbeat(),
    )


def test_a_stream_whose_worker_dies_ends_with_an_error_and_is_settled(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def begin(request: InferenceRequest, reply: Reply) -> None:
        reply(RequestStarted())
        for _ in range(8):
            reply(Delta("word ", 1))

    stage.deployment(behavior=begin)
    stage.limit("concurrent_requests", 1)
    stream = Stream(stage, stage.key())
    stage.responders[0].die()
    assert "stopped before it answered" in stream.end()
    assert '"code": "worker_lost"' in stream.lines[-1]
    (entry,) = stage.entries()
    assert (entry.outcome, entry.ran, entry.completion_tokens) == ("failed", True, 8)
    assert entry.prompt_tokens > 0
    # The warning comes from a task that watches the workers of all requests.
    (warning,) = [each for each in caplog.records if "has died" in each.getMessage()]
    assert vars(warning)["request_id"] == entry.request_id
    assert stage.redis.keys("assay:quota:reservation:*") == []


@pytest.mark.parametrize("taken", [True, False])
def test_before_the_first_byte_it_is_an_error_of_its_own(stage: Stage, taken: bool) -> None:
    def begin(request: InferenceRequest, reply: Reply) -> None:
        if taken:
            reply(RequestStarted())
        stage.responders[0].die()

    stage.deployment(behavior=begin)
    answer = stage.post(CHAT, stage.key(), json=GOOD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "worker_lost")
    (entry,) = stage.entries()
    assert (entry.outcome, entry.cost_micro) == ("failed", 0)


def test_the_death_of_one_worker_ends_nothing_that_another_answers(stage: Stage) -> None:
    def answer_late(request: InferenceRequest, reply: Reply) -> None:
        wait_until(lambda: len(seen) > 0)
        say_hello(request, reply)

    seen: list[bool] = []
    deployment = stage.deployment(behavior=answer_late)
    dead = "ab" * 32
    second_worker(deployment, dead)
    stage.notify()
    token = stage.key()
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(stage.post(CHAT, token, json=GOOD)))
    thread.start()
    since = worker_watch.time.monotonic
    wait_until(lambda: missing(stage).get(dead, since()) < since() - 2 * worker_watch.PATIENCE_S)
    seen.append(True)
    thread.join(PATIENCE_S)
    assert answers[0].status_code == 200


def test_a_sign_of_life_that_a_flush_took_ends_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_late(request: InferenceRequest, reply: Reply) -> None:
        reply(RequestStarted())
        stage.responders[0].die()
        wait_until(lambda: bool(missing(stage)))
        stage.responders[0].live()
        wait_until(lambda: not missing(stage))
        say_hello(request, reply)

    monkeypatch.setattr(worker_watch, "PATIENCE_S", 20)
    stage.deployment(behavior=answer_late)
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 200
