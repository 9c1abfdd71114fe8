"""Celery message of an inference request, as bytes that an event loop can push by itself.

`Celery.send_task` blocks, so a gateway would need threads, and each request 50 % more processor
time. A test compares every field with Celery's own message for the same task
(`tests/unit/workers/test_celery_message.py`), so that an upgrade cannot change the format
unnoticed. Uses neither Celery nor Django.
"""

from __future__ import annotations

import base64
import os
import secrets
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from workers.wire import INFERENCE_TASK, InferenceRequest, deployment_queue

# A request is worth answering for at least this long, in seconds.
_SHORTEST_S = 1.0
_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_ORIGIN = f"gen{os.getpid()}@{socket.gethostname()}"


def inference_message(request: InferenceRequest, sealed: Mapping[str, Any]) -> bytes:
    """Return the message for the request's queue, to be pushed with LPUSH.

    It uses Celery's protocol 2 in kombu's envelope for Redis. `sealed` is the task's argument.
    """
    request_id = request.request_id
    expires = max(request.deadline, request.enqueued_at + _SHORTEST_S)
    body = orjson.dumps([[sealed], {}, _EMBED])
    return orjson.dumps(
        {
            "body": base64.b64encode(body).decode("ascii"),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": INFERENCE_TASK,
                "id": request_id,
                "shadow": None,
                "eta": None,
                "expires": datetime.fromtimestamp(expires, UTC).isoformat(),
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": request_id,
                "parent_id": None,
                # Celery would put an excerpt of the prompt here, and thereby into logs.
                "argsrepr": request_id,
                "kwargsrepr": "{}",
                "origin": _ORIGIN,
                "ignore_result": True,
                "replaced_task_nesting": 0,
                "stamped_headers": None,
                "stamps": {},
            },
            "properties": {
                "correlation_id": request_id,
                # Read by the controller, which measures the age of queues; workers ignore it.
                "timestamp": request.enqueued_at,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {
                    "exchange": "",
                    "routing_key": deployment_queue(request.deployment_id),
                },
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": secrets.token_hex(16),
            },
        }
    )
