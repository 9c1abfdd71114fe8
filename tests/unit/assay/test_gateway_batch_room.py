"""Batches wait, give way, or end, where a worker, a budget or the room for files is used up."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from typing import Any

import openai
import pytest

from assay.gateway.batches import run as batch_run
from assay.gateway.batches.places import places_key, waiting_key
from assay.gateway.batches.run import ENGINE_TRIES
from registry.batches import services as batch_services
from registry.batches.models import Batch, BatchLine
from tests.unit.assay.batch_support import CHAT, content_of, create, ended, line, results, state_of
from tests.unit.assay.gateway_support import Stage, lasting_heartbeat, say_hello, stage
from tests.waiting import PATIENCE_S, wait_until
from workers.deployments.models import Deployment, Replica, ReplicaState
from workers.deployments.worker_keys import worker_key_register
from workers.wire import Failed, InferenceRequest, deployment_queue

__all__ = ["stage"]

pytestmark = pytest.mark.sweep


@pytest.fixture(autouse=True)
def data_dir(settings: Any, tmp_path: Any) -> None:
    settings.DATA_DIR = tmp_path


def test_lines_that_a_worker_could_not_answer_are_asked_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_run, "_ENGINE_PAUSE_S", 0.001)
    troubles = [
        Failed("not_loaded", "It is not loaded.", 503),
        Failed("engine_overloaded", "Too many requests wait.", 429),
        Failed("worker_lost", "The worker has died.", 502),
    ]

    def answer(request: InferenceRequest, reply: Any) -> None:
        text = request.inputs["messages"][0]["content"]
        asked[text] += 1
        if text == "never":
            reply(troubles[0])
        elif text == "billed":
            reply(Failed("engine_stopped", "It was stopped.", 503, prompt_tokens=3, units=3))
        elif asked[text] <= len(troubles):
            reply(troubles[asked[text] - 1])
        else:
            say_hello(request, reply)

    asked: Counter[str] = Counter()
    stage.deployment(behavior=answer)
    client = stage.client(stage.key())
    names = ["a", "b", "never", "billed"]
    done = ended(client, create(client, [line(name, name) for name in names]).id)
    assert sorted(results(client, done.output_file_id)) == ["a", "b"]
    errors = results(client, done.error_file_id)
    assert {name: each["response"]["status_code"] for name, each in errors.items()} == {
        "never": 503,
        "billed": 503,
    }
    assert asked == {"a": 4, "b": 4, "never": ENGINE_TRIES, "billed": 1}


def test_a_batch_pauses_while_its_worker_cannot_answer(stage: Stage) -> None:
    stage.deployment(behavior=lambda _, reply: reply(Failed("not_loaded", "Not loaded.", 503)))
    client = stage.client(stage.key())
    made = create(client, [line(f"q{number}") for number in range(50)])
    wait_until(lambda: BatchLine.objects.filter(engine_failures=1, state="waiting").exists())
    # The lines that ran at that time, and no further ones.
    assert BatchLine.objects.count() <= 4
    client.batches.cancel(made.id)
    assert ended(client, made.id, "cancelled").request_counts.failed == 50


def test_a_batch_ends_when_its_department_has_no_room_for_answers(
    stage: Stage, settings: Any
) -> None:
    settings.BATCH_CONCURRENCY = 1
    stage.deployment()
    client = stage.client(stage.key())
    lines = content_of(line(f"q{number}") for number in range(20))
    settings.FILES_DEPARTMENT_BYTES = len(lines) + 2_000
    done = ended(client, create(client, lines).id, "failed")
    assert [fault.code for fault in done.errors.data] == ["too_many_files"]
    answers = results(client, done.output_file_id)
    assert 0 < len(answers) < 5
    assert len(results(client, done.error_file_id)) == 20 - len(answers)
    with pytest.raises(openai.ConflictError) as full:
        client.batches.create(
            input_file_id=done.input_file_id, endpoint=CHAT, completion_window="24h"
        )
    assert full.value.code == "too_many_files"


def test_a_budget_without_room_before_the_end_of_a_batch_ends_it(
    stage: Stage, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BATCH_CONCURRENCY = 1
    monkeypatch.setattr(batch_services, "WINDOW", timedelta(minutes=5))
    stage.deployment()
    stage.limit("tokens_per_month", 60)
    body = {
        "model": "writer",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 5,
    }
    client = stage.client(stage.key())
    made = create(client, [line(f"q{number}", body=body) for number in range(40)])
    done = ended(client, made.id, "failed")
    (fault,) = done.errors.data
    assert fault.code == "quota_exceeded"
    answers = results(client, done.output_file_id)
    assert 0 < len(answers) < 9
    errors = results(client, done.error_file_id)
    assert Batch.objects.get().failures == {
        "quota_exceeded": 10,
        "batch_failed": 30 - len(answers),
    }
    assert {each["response"]["status_code"] for each in errors.values() if each["response"]} == {
        429
    }


def test_a_line_waits_for_its_quota_and_is_neither_lost_nor_asked_twice(stage: Stage) -> None:
    stage.deployment(ready=False)
    client = stage.client(stage.key())
    made = create(client, [line("a"), line("b")])
    wait_until(lambda: BatchLine.objects.filter(state="waiting").exists())
    assert state_of(made.id) == "in_progress"
    stage.limit("tokens_per_day", 1)
    deployment = Deployment.objects.get()
    worker = f"responder-{deployment.pk}"
    Replica.objects.create(
        deployment=deployment,
        worker=worker,
        state=ReplicaState.READY,
        loaded_digest="d" * 64,
        heartbeat_at=lasting_heartbeat(),
    )
    worker_key_register(worker=worker, public_key=stage.responders[0].seals.public_key)
    stage.notify()
    done = ended(client, made.id)
    assert done.request_counts.failed == 2
    errors = results(client, done.error_file_id)
    assert {each["response"]["status_code"] for each in errors.values()} == {429}


def test_a_batch_gives_way_while_requests_wait_for_the_deployment(stage: Stage) -> None:
    deployment = stage.deployment(behavior=None)
    queue = deployment_queue(deployment.pk)
    stage.redis.lpush(queue, *["x"] * 3)
    client = stage.client(stage.key())
    made = create(client, [line("a")])
    wait_until(lambda: state_of(made.id) == "in_progress")
    assert not BatchLine.objects.exists()
    assert stage.redis.llen(queue) == 3
    client.batches.cancel(made.id)
    assert ended(client, made.id, "cancelled").request_counts.total == 1


def test_batches_share_few_places_on_a_deployment_whose_worker_takes_all_it_gets(
    stage: Stage, settings: Any
) -> None:
    settings.BATCH_DEPLOYMENT_LINES = 3
    may_end = threading.Event()
    lock = threading.Lock()
    running: set[str] = set()
    most: list[int] = []

    def hold(request: InferenceRequest, reply: Any) -> None:
        if request.inputs["messages"][0]["content"] != "online":
            with lock:
                running.add(request.request_id)
                most.append(len(running))
            may_end.wait(PATIENCE_S)
            with lock:
                running.discard(request.request_id)
        say_hello(request, reply)

    deployment = stage.deployment(departments=("engineering", "finance"), behavior=hold)
    clients = [stage.client(stage.key(slug)) for slug in ("engineering", "finance")]
    lines = [line(f"q{number}") for number in range(6)]
    made = [(client, create(client, lines).id) for client in clients]
    wait_until(lambda: len(running) == 3 and bool(stage.redis.exists(waiting_key(deployment.pk))))
    assert stage.redis.llen(deployment_queue(deployment.pk)) == 0
    asked: Any = [{"role": "user", "content": "online"}]
    online = clients[0].chat.completions.create(model="writer", messages=asked)
    assert online.choices[0].message.content == "Hello there"
    wait_until(lambda: {state_of(name) for _, name in made} == {"in_progress"})
    assert len(running) == 3
    may_end.set()
    for client, name in made:
        assert ended(client, name).request_counts.completed == 6
    assert max(most) == 3
    assert not stage.redis.zcard(places_key(deployment.pk))


def test_a_place_that_a_batch_leaves_goes_to_another_batch(stage: Stage, settings: Any) -> None:
    settings.BATCH_DEPLOYMENT_LINES = settings.BATCH_CONCURRENCY = 1
    may_end = threading.Event()

    def hold(request: InferenceRequest, reply: Any) -> None:
        asked.append(request.inputs["messages"][0]["content"])
        may_end.wait(PATIENCE_S)
        say_hello(request, reply)

    asked: list[str] = []
    deployment = stage.deployment(behavior=hold)
    client = stage.client(stage.key())
    first = create(client, [line(f"q{number}", "first") for number in range(8)])
    wait_until(lambda: asked == ["first"])
    second = create(client, [line("a", "second")])
    wait_until(lambda: bool(stage.redis.exists(waiting_key(deployment.pk))))
    may_end.set()
    for batch in (first, second):
        ended(client, batch.id)
    assert asked.index("second") < 8


def test_the_place_of_a_gateway_that_died_is_free_after_its_time(stage: Stage) -> None:
    deployment = stage.deployment()
    stage.redis.zadd(places_key(deployment.pk), {f"lost:{number}": 1 for number in range(8)})
    client = stage.client(stage.key())
    assert ended(client, create(client, [line("a")]).id).request_counts.completed == 1
