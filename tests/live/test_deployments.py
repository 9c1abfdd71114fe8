"""An engine worker as Celery runs it: loads, reads its queue, answers, cancels, lets go, ends."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.live.celery_worker import worker
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.unit.workers.sealed import Wire, entries
from tests.waiting import PATIENCE_S, wait_until
from workers.app import app
from workers.deployments.models import (
    Deployment,
    DeploymentState,
    Replica,
    ReplicaState,
    WorkerKey,
)
from workers.deployments.services import deployment_create, deployment_stop
from workers.placement.assigning import placements_update
from workers.presence import workers_present
from workers.sealing import GIVEN_BACK
from workers.wire import (
    CANCEL_CHANNEL,
    INFERENCE_TASK,
    Delta,
    InferenceRequest,
    RequestStarted,
    deployment_queue,
)

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
STREAM = "assay:reply:test"
ENGINE = (
    *("-I", "tests.live.echo_catalog,workers.celery_tasks.inference"),
    *("-Q", "engine.none", "-P", "threads", "-c", "8"),
)


@pytest.fixture(autouse=True)
def long_leases(settings: Any) -> None:
    """No controller renews them here."""
    settings.SERVING_LEASE_S = 3600


def send(wire: Wire, deployment: Deployment, request_id: str, prompt: str) -> None:
    request = InferenceRequest(
        request_id=request_id,
        deployment_id=deployment.pk,
        deployment=deployment.name,
        digest=deployment.release.version.digest,
        reply_stream=STREAM,
        inputs={"prompt": prompt},
        enqueued_at=time.time(),
        deadline=time.time() + 60,
    )
    sealed = wire.seal(request, *WorkerKey.objects.values_list("public_key", flat=True))
    app.send_task(INFERENCE_TASK, args=[sealed], queue=deployment_queue(deployment.pk))


class Ends:
    """Results of requests by ID; each entry of the stream is read once."""

    def __init__(self, redis: Redis, wire: Wire) -> None:
        self._redis, self._wire = redis, wire
        self._read = 0
        self._found: dict[str, Any] = {}

    def __call__(self) -> dict[str, Any]:
        for fields in list(entries(self._redis, STREAM))[self._read :]:
            self._read += 1
            *_, event = self._wire.events(fields)
            if not isinstance(event, Delta | RequestStarted):
                self._found[fields[b"id"].decode()] = event
        return self._found


def in_state(deployment: Deployment, state: DeploymentState) -> bool:
    placements_update()  # The controller's, which does not run here.
    deployment.refresh_from_db()
    return deployment.state == state


def test_a_deployment_lives_and_ends_on_an_engine_worker(redis: Redis, tmp_path: Path) -> None:
    actor, wire = company.developer(), Wire()
    ends = Ends(redis, wire)
    before = deployment_create(actor=actor, release_id=release(adapter()).pk)
    with worker(tmp_path / "engine.log", *ENGINE) as process:
        wait_until(lambda: in_state(before, DeploymentState.SERVING))
        # One that is made while the worker runs is loaded because it hears of it.
        after = deployment_create(actor=actor, release_id=release(adapter(b"more"), name="more").pk)
        wait_until(lambda: in_state(after, DeploymentState.SERVING))
        send(wire, before, "r1", "one two")
        send(wire, after, "r2", "three")
        wait_until(lambda: len(ends()) == 2)
        assert {each.finish_reason for each in ends().values()} == {"stop"}

        send(wire, after, "r3", "wait")
        wait_until(lambda: redis.llen(deployment_queue(after.pk)) == 0)
        redis.publish(CANCEL_CHANNEL, "r3")
        redis.publish(CANCEL_CHANNEL, "r3:" + "0" * 64)
        send(wire, after, "r6", "behind the forged cancellations")
        wait_until(lambda: "r6" in ends())
        assert "r3" not in ends()
        redis.publish(CANCEL_CHANNEL, wire.key.cancel_message("r3"))
        wait_until(lambda: "r3" in ends())
        assert ends()["r3"].finish_reason == "canceled"

        deployment_stop(actor=company.person("lea", "lead", "clinical"), deployment_id=before.pk)
        stopped = Replica.objects.filter(deployment=before, state=ReplicaState.STOPPED)
        wait_until(stopped.exists)
        send(wire, before, "r4", "too late")
        send(wire, after, "r5", "still here")
        wait_until(lambda: "r5" in ends())
        # It waits in the queue; or the worker, whose last read of it was under way, sent it back.
        wait_until(lambda: redis.llen(deployment_queue(before.pk)) == 1 or "r4" in ends())
        assert ends().get("r4", GIVEN_BACK) == GIVEN_BACK

        assert workers_present(redis)
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, (tmp_path / "engine.log").read_text()
        assert workers_present(redis) == []
    assert not Replica.objects.filter(state=ReplicaState.READY).exists()
    assert in_state(after, DeploymentState.PENDING)
