"""A gateway's message is the one that Celery itself would send, field by field."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

import redis as redis_module

from tests.waiting import PATIENCE_S
from workers.app import app
from workers.celery_message import inference_message
from workers.wire import INFERENCE_TASK, InferenceRequest, deployment_queue

SEALED = {"request_id": "req_1", "seals": {"a" * 64: "b"}, "mac": "c", "body": 'é<"\u2028'}
# Differ from message to message, or concern no worker: `reply_to` and `expiration` are of brokers
# that answer and expire by themselves; `argsrepr` stands in the headers too.
OWN = {"delivery_tag", "reply_to", "expiration", "argsrepr"}


def a_request(deployment: int) -> InferenceRequest:
    return InferenceRequest(
        "req_1", deployment, "writer", "d" * 64, "assay:reply:1", {},
        enqueued_at=1_900_000_000.0, deadline=1_900_000_060.0,
    )  # fmt: skip


def sent_by_celery(redis: redis_module.Redis, deployment: int) -> dict[str, Any]:
    queue = deployment_queue(deployment)
    app.send_task(
        INFERENCE_TASK,
        args=[SEALED],
        queue=queue,
        task_id="req_1",
        expires=60.0,
        ignore_result=True,
        argsrepr="req_1",
    )
    found: Any = redis.rpop(queue)
    message: dict[str, Any] = json.loads(found)
    return message


def test_the_message_equals_celerys_in_every_field(redis: redis_module.Redis) -> None:
    theirs, ours = (
        sent_by_celery(redis, 8001),
        json.loads(inference_message(a_request(8001), SEALED)),
    )
    bodies = [json.loads(base64.b64decode(one.pop("body"))) for one in (ours, theirs)]
    expiries = [datetime.fromisoformat(one["headers"].pop("expires")) for one in (ours, theirs)]
    origins = [one["headers"].pop("origin") for one in (ours, theirs)]
    properties = [one.pop("properties") for one in (ours, theirs)]
    assert ours == theirs
    assert bodies[0] == bodies[1]
    assert expiries[0].timestamp() == 1_900_000_060.0
    assert expiries[0].utcoffset() == expiries[1].utcoffset()
    assert origins[0] == origins[1]
    # Celery sets no time; AMQP has a property for it.
    assert properties[0].pop("timestamp") == 1_900_000_000.0
    assert properties[0].keys() <= properties[1].keys()
    for name in properties[1].keys() - OWN:
        assert properties[0][name] == properties[1][name]


def test_kombu_reads_the_message_and_its_one_argument(redis: redis_module.Redis) -> None:
    queue = deployment_queue(8002)
    redis.lpush(queue, inference_message(a_request(8002), SEALED))
    with app.connection() as connection, connection.SimpleQueue(queue) as waiting:
        message = waiting.get(timeout=PATIENCE_S)
        message.ack()
    arguments, keywords, _ = message.payload
    assert (arguments, keywords) == ([SEALED], {})
    assert message.headers["id"] == "req_1"


def test_messages_are_read_in_the_order_of_their_sending(redis: redis_module.Redis) -> None:
    queue = deployment_queue(8003)
    for number in range(2):
        redis.lpush(queue, inference_message(a_request(8003), {"number": number}))
    with app.connection() as connection, connection.SimpleQueue(queue) as waiting:
        read = [waiting.get(timeout=PATIENCE_S) for _ in range(2)]
    for message in read:
        message.ack()
    assert [message.payload[0][0]["number"] for message in read] == [0, 1]


def test_every_message_has_a_tag_of_its_own() -> None:
    # kombu files unacknowledged messages under it: two of the same would be one.
    made = [json.loads(inference_message(a_request(1), SEALED)) for _ in range(2)]
    first, second = (one["properties"]["delivery_tag"] for one in made)
    assert first != second
