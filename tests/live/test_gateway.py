"""Two gateway processes, a real Celery worker and real stores: what only processes can show."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import openai
import pytest
from django.utils import timezone

from governance.keys.models import ApiKey
from governance.usage.records import USAGE_STREAM, UsageEntry
from tests.live.celery_worker import QUIET
from tests.live.web_process import process, web
from tests.unit.assay.gateway_support import Stage, stage
from tests.waiting import PATIENCE_S, wait_until
from workers.deployments.models import Replica, WorkerKey
from workers.wire import IDLE_QUEUE, SNAPSHOT_CHANNEL, deployment_queue

__all__ = ["stage"]

pytestmark = pytest.mark.live
CHAT = "/v1/chat/completions"
BODY = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}

# An engine worker without an engine: Celery's own consumer, our own protocol, a fixed answer.
ENGINE = """
import redis
from celery.signals import worker_ready
from django.conf import settings
from kombu import Queue
from workers.app import app
from workers.sealing import WorkerSeals
from workers.wire_keys import WireKey
from workers.wire import INFERENCE_TASK, Delta, Done

client = redis.Redis.from_url(settings.REDIS_URL)
worker = WorkerSeals(WireKey(settings.WIRE_KEY))

@worker_ready.connect
def register(sender, **_):
    # As `workers.celery_tasks.inference` does: to declare a queue takes commands that workers lack.
    sender.app.amqp.queues.add(Queue("QUEUE", no_declare=True))
    sender.add_task_queue("QUEUE")
    from workers.deployments.worker_keys import worker_key_register

    worker_key_register(worker="WORKER", public_key=worker.public_key)

@app.task(name=INFERENCE_TASK)
def run(message):
    request, seals = worker.open(message)
    slow = request.inputs["messages"][-1]["content"] == "slowly"
    for event in (Delta("Hello", 1), *(() if slow else (Done("stop", 5, 1),))):
        client.xadd(request.reply_stream, seals.seal(event))
"""


@contextmanager
def engine(folder: Path, deployment_id: int) -> Iterator[None]:
    program = ENGINE.replace("QUEUE", deployment_queue(deployment_id))
    program = program.replace("WORKER", f"responder-{deployment_id}")
    (folder / "fixed_engine.py").write_text(program)
    before = WorkerKey.objects.get().public_key
    options = ("-I", "fixed_engine", "-Q", IDLE_QUEUE, "-P", "threads", "-c", "8")
    command = ("celery", "-A", "workers.app", "worker", *options, *QUIET)
    with process(folder, "engine", *command):
        wait_until(lambda: WorkerKey.objects.get().public_key != before)
        # Nobody renews it, however long the other processes take to start.
        later = timezone.now() + timedelta(minutes=5)
        Replica.objects.filter(deployment_id=deployment_id).update(heartbeat_at=later)
        yield


def post(url: str, token: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.post(f"{url}{CHAT}", json=BODY, headers=headers, timeout=60)


def test_two_gateways_share_quotas_keys_and_workers(stage: Stage, tmp_path: Path) -> None:
    deployment = stage.deployment(behavior=None)
    stage.limit("requests_per_minute", 10)
    token = stage.key()
    with ExitStack() as stack:
        stack.enter_context(engine(tmp_path, deployment.pk))
        urls = [stack.enter_context(web(tmp_path))[0] for _ in range(2)]
        with ThreadPoolExecutor(8) as pool:
            statuses = Counter(
                answer.status_code
                for answer in pool.map(lambda n: post(urls[n % 2], token), range(24))
            )
        assert statuses == {200: 10, 429: 14}
        ApiKey.objects.update(revoked_at="2026-01-01T00:00:00Z")
        stage.redis.publish(SNAPSHOT_CHANNEL, "")
        for url in urls:
            wait_until(lambda url=url: post(url, token).status_code == 401)  # type: ignore[misc]


def test_a_stopped_gateway_settles_what_it_was_answering(stage: Stage, tmp_path: Path) -> None:
    deployment = stage.deployment(behavior=None)
    stage.limit("concurrent_requests", 1)
    token = stage.key()
    with engine(tmp_path, deployment.pk), web(tmp_path) as (url, server):
        stream = openai.OpenAI(
            api_key=token, base_url=f"{url}/v1", max_retries=0
        ).chat.completions.create(
            model="writer", messages=[{"role": "user", "content": "slowly"}], stream=True
        )
        assert next(iter(stream)).choices[0].delta.role == "assistant"
        server.send_signal(signal.SIGTERM)
        stream.close()
        assert server.wait(PATIENCE_S) is not None
    ((_, fields),) = stage.redis.xrange(USAGE_STREAM)
    entry = UsageEntry.decode(fields[b"entry"])
    assert (entry.outcome, entry.completion_tokens) == ("canceled", 1)
    assert stage.redis.keys("assay:quota:concurrent_requests:*") == []
