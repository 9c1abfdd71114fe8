"""A request for a deployment that is scaled to zero asks for it, and waits or is told how long."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from assay.gateway.run.cold_start import LOOK_S
from tests.unit.assay.gateway_support import DIGEST, Stage, lasting_heartbeat, say_hello, stage
from tests.unit.assay.test_gateway_refusals import error_of
from tests.waiting import PATIENCE_S, wait_until
from workers.deployments.models import Deployment, Replica, ReplicaState
from workers.wire import IN_USE_KEY, WANTED_KEY

__all__ = ["stage"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]
CHAT = "/v1/chat/completions"
GOOD = {"model": "writer", "messages": [{"role": "user", "content": "Hello"}]}


def asleep(stage: Stage, **more: Any) -> Deployment:
    deployment = stage.deployment(ready=False, behavior=None, **more)
    Deployment.objects.filter(pk=deployment.pk).update(replicas_min=0, replicas_wanted=0)
    stage.notify()
    return deployment


def test_the_request_waits_while_the_deployment_is_loaded(stage: Stage) -> None:
    deployment = asleep(stage)
    token, answers = stage.key(), []
    caller = threading.Thread(target=lambda: answers.append(stage.post(CHAT, token, json=GOOD)))
    caller.start()
    wait_until(lambda: stage.redis.zscore(WANTED_KEY, str(deployment.pk)) is not None)
    assert answers == []
    stage.respond(deployment, say_hello)
    Replica.objects.create(
        deployment=deployment,
        worker=f"responder-{deployment.pk}",
        state=ReplicaState.READY,
        loaded_digest=DIGEST,
        heartbeat_at=lasting_heartbeat(),
    )
    stage.notify()
    caller.join(PATIENCE_S)
    assert answers[0].status_code == 200, answers[0].text
    (entry,) = stage.entries()
    # It looks for a loaded replica at intervals of LOOK_S.
    assert LOOK_S * 1000 - 1 <= entry.load_ms <= entry.total_ms
    assert entry.first_token_ms is None
    connection.close()


def test_one_that_is_not_loaded_in_time_is_told_when_to_come_back(
    stage: Stage, settings: Any
) -> None:
    settings.GATEWAY_COLD_START_S = 1
    deployment = asleep(stage)
    Replica.objects.create(
        deployment=deployment,
        worker="earlier",
        state=ReplicaState.STOPPED,
        load_seconds=41.2,
        heartbeat_at=timezone.now(),
    )
    stage.notify()
    before = time.monotonic()
    response = stage.post(CHAT, stage.key(), json=GOOD)
    assert time.monotonic() - before >= 1
    assert (response.status_code, error_of(response)["code"]) == (503, "no_ready_replica")
    assert response.headers["retry-after"] == "42"
    assert "scaled to zero" in error_of(response)["message"]


def test_a_request_that_may_not_wait_starts_the_load(stage: Stage, settings: Any) -> None:
    settings.GATEWAY_COLD_START_S = 0
    deployment = asleep(stage)
    response = stage.post(CHAT, stage.key(), json=GOOD)
    assert (response.status_code, error_of(response)["code"]) == (503, "no_ready_replica")
    assert stage.redis.zscore(WANTED_KEY, str(deployment.pk)) is not None


def test_a_deployment_that_keeps_a_replica_is_refused_at_once(stage: Stage) -> None:
    deployment = stage.deployment(ready=False)
    response = stage.post(CHAT, stage.key(), json=GOOD)
    assert (response.status_code, error_of(response)["code"]) == (503, "no_ready_replica")
    assert stage.redis.zscore(WANTED_KEY, str(deployment.pk)) is None


def test_what_answers_a_request_is_noted_at_the_next_snapshot(stage: Stage) -> None:
    go_on = threading.Event()

    def slow(request: Any, reply: Any) -> None:
        go_on.wait(PATIENCE_S)
        say_hello(request, reply)

    deployment = stage.deployment(behavior=slow)
    Deployment.objects.filter(pk=deployment.pk).update(replicas_min=0)
    stage.notify()
    assert stage.redis.zscore(IN_USE_KEY, str(deployment.pk)) is None
    token, answers = stage.key(), []
    caller = threading.Thread(target=lambda: answers.append(stage.post(CHAT, token, json=GOOD)))
    caller.start()

    def noted() -> bool:
        stage.notify()
        return stage.redis.zscore(IN_USE_KEY, str(deployment.pk)) is not None

    wait_until(noted)
    go_on.set()
    caller.join(PATIENCE_S)
    assert answers[0].status_code == 200, answers[0].text
    connection.close()


def test_whoever_may_not_use_it_cannot_wake_it(stage: Stage) -> None:
    deployment = asleep(stage)
    response = stage.post(CHAT, stage.key(department="finance"), json=GOOD)
    assert response.status_code in {403, 404}
    assert stage.redis.zscore(WANTED_KEY, str(deployment.pk)) is None
