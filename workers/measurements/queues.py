"""Measure the age of the oldest request in each deployment's queue."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import redis
from django.conf import settings
from redis.exceptions import NoScriptError

from workers.deployments.models import Deployment
from workers.deployments.states import LIVE
from workers.measurements.models import Measurement
from workers.wire import deployment_queue

QUEUES = "queues"
# Queues that one call of the broker looks at, which it does not interrupt for other commands.
TOGETHER = 500
TIMEOUT_S = 5.0
# Messages are pushed on the left, and `properties` come last in each (`workers.celery_message`).
# The broker returns only their time: a message may have megabytes.
_SCRIPT = """
local times = {}
for place, queue in ipairs(KEYS) do
    local oldest = redis.call('LINDEX', queue, -1)
    times[place] = oldest and string.match(string.sub(oldest, -1024), '"timestamp":([%d.]+)') or ''
end
return times
"""
_DIGEST = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


def queues_measure() -> None:
    """Store the age in seconds of the oldest request of each live deployment that has one waiting.

    Raises:
        redis.RedisError: the broker does not answer; the figures do not change.
    """
    names = dict(Deployment.objects.filter(state__in=LIVE).values_list("pk", "name"))
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
    )
    try:
        now = time.time()
        ages = {names[pk]: max(0.0, now - since) for pk, since in waiting_since(client, [*names])}
    finally:
        client.close()
    Measurement.keep(QUEUES, {"ages": ages})


def waiting_since(client: redis.Redis, deployments: list[int]) -> Iterator[tuple[int, float]]:
    """Yield the deployments whose queue is not empty, with the time of the oldest message in
    seconds since the epoch."""
    for start in range(0, len(deployments), TOGETHER):
        some = deployments[start : start + TOGETHER]
        queues = [*map(deployment_queue, some)]
        # The controller may read queues only, so the script must be one that only reads.
        try:
            times: Any = client.evalsha_ro(_DIGEST, len(queues), *queues)
        except NoScriptError:
            client.script_load(_SCRIPT)
            times = client.evalsha_ro(_DIGEST, len(queues), *queues)
        for pk, since in zip(some, times, strict=True):
            if since:
                yield pk, float(since)
