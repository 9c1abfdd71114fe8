"""Worker, controller and web process killed in a live run, and a broker that forgets everything."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.utils import timezone
from redis import Redis

from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.keys.tokens import format_token, mint, secret_hmac
from governance.usage.models import UsageRecord
from tests.live.celery_worker import (
    controller,
    end_database_connections,
    kill,
    worker,
)
from tests.live.web_process import web
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.waiting import PATIENCE_S, wait_until
from workers.deployments.models import Deployment, DeploymentState, ServingLease
from workers.deployments.services import deployment_create

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
ENGINE = (
    *("-I", "tests.live.echo_catalog,workers.celery_tasks.inference"),
    *("-Q", "engine.none", "-P", "threads", "-c", "8"),
)
LEASE_S = 15
LEASE = {"ASSAY_SERVING_LEASE_S": str(LEASE_S)}
ADMITTED_UNTIL = "assay:quota:admitted:deadlines"


class Live:
    """Web process, controller and engine worker, and one deployment that serves."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        approved = release(adapter())
        self.deployment = deployment_create(actor=company.developer(), release_id=approved.pk)
        self.token = key()
        self.controller = stack.enter_context(controller(folder / "controller.log", **LEASE))
        self.worker = stack.enter_context(worker(folder / "engine.log", *ENGINE, **LEASE))
        self.url, self.web = stack.enter_context(web(folder, **LEASE))
        wait_until(lambda: self.state() == DeploymentState.SERVING)
        wait_until(lambda: self.post("one two").status_code == 200)

    def state(self) -> str:
        return Deployment.objects.get(pk=self.deployment.pk).state

    def body(self, prompt: str, **more: Any) -> dict[str, Any]:
        return {"model": "docs", "prompt": prompt, "max_tokens": 8, **more}

    def post(self, prompt: str) -> httpx.Response:
        return httpx.post(
            f"{self.url}/v1/completions", json=self.body(prompt), headers=self.headers, timeout=60
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def stream(self) -> Stream:
        return Stream(self)


class Stream:
    """A streamed answer that has begun and does not end by itself."""

    def __init__(self, live: Live) -> None:
        self.lines: list[str] = []
        self._live = live
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        wait_until(lambda: any("two" in line for line in self.lines))

    def _read(self) -> None:
        live = self._live
        body = live.body("one two wait", stream=True)
        url = f"{live.url}/v1/completions"
        try:
            with httpx.stream("POST", url, json=body, headers=live.headers, timeout=60) as answer:
                self.lines.extend(line for line in answer.iter_lines() if line)
        except httpx.HTTPError:
            self.lines.append("broken")

    def end(self) -> str:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self.lines[-1]


def key() -> str:
    public_id, secret = mint()
    ApiKey.objects.create(
        public_id=public_id,
        secret_hmac=secret_hmac(secret, settings.KEY_PEPPERS[1]),
        pepper_version=1,
        name="tests",
        department=company.department("clinical"),
        scopes=["deployment:invoke"],
        expires_at=timezone.now() + timedelta(days=1),
    )
    return format_token(public_id, secret)


@contextmanager
def measured(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    sys.stdout.write(f"\n{what}: {time.monotonic() - began:.1f} s\n")


@pytest.fixture
def live(redis: Redis, tmp_path: Path) -> Iterator[Live]:
    with ExitStack() as stack:
        yield Live(tmp_path, stack)


def test_a_killed_worker_ends_its_requests_within_seconds_and_they_are_settled(live: Live) -> None:
    stream = live.stream()
    kill(live.worker)
    with measured("stream ended after the worker was killed"):
        last = stream.end()
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "worker_lost"
    failed = UsageRecord.objects.filter(outcome="failed")
    wait_until(lambda: failed.exists())
    assert failed.get().completion_tokens == 2
    # Another one takes over.
    with measured("served again"), worker(live.folder / "engine.log", *ENGINE, **LEASE):
        wait_until(lambda: live.post("one two").status_code == 200)


def test_a_killed_controller_ends_all_serving_within_its_lease(live: Live) -> None:
    stream = live.stream()
    kill(live.controller)
    with measured("serving ended after the controller was killed"):
        last = stream.end()
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "release_not_confirmed"
    refused = live.post("one two")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "release_not_confirmed")
    with controller(live.folder / "controller.log", **LEASE), measured("served again"):
        wait_until(lambda: live.post("one two").status_code == 200)


def test_a_killed_web_process_leaves_a_record_and_an_event_of_what_it_answered(
    live: Live, redis: Redis
) -> None:
    stream = live.stream()
    os.killpg(live.web.pid, signal.SIGKILL)
    assert stream.end() == "broken"
    ((request_id, _),) = redis.zrange(ADMITTED_UNTIL, 0, -1, withscores=True)
    redis.zadd(ADMITTED_UNTIL, {request_id: 1})  # Its two minutes are over.
    answered = UsageRecord.objects.filter(request_id=request_id.decode())
    wait_until(lambda: answered.exists())
    record = answered.get()
    assert (record.outcome, record.prompt_tokens > 0) == ("failed", True)
    assert AuditEvent.objects.filter(delivery=record.request_id).exists()


def test_a_restart_of_the_database_and_a_flush_of_the_broker_end_serving_for_seconds_at_most(
    live: Live, redis: Redis
) -> None:
    stream = live.stream()
    leased = ServingLease.objects.get().servable_until
    end_database_connections()
    assert live.post("one two").status_code in (200, 503)
    with measured("leases renewed after a restart of the database"):
        wait_until(lambda: ServingLease.objects.get().servable_until > leased)
    assert stream.lines[-1] != "broken"
    wait_until(lambda: live.post("one two").status_code == 200)
    redis.flushall()
    with measured("served again after a flush"):
        wait_until(lambda: live.post("one two").status_code == 200)
    kill(live.worker)
    assert "error" in stream.end()
