"""Measure the age of the oldest request in each deployment's queue."""

from __future__ import annotations

import time

import redis
from django.conf import settings

from workers.deployments.models import Deployment
from workers.deployments.states import LIVE
from workers.measurements.models import Measurement
from workers.queue_ages import read_queues

QUEUES = "queues"
TIMEOUT_S = 5.0


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
        queues = read_queues(client, [*names])
    finally:
        client.close()
    ages: dict[str, float] = {}
    for pk, queue in queues.items():
        if queue.since is not None:
            # The primary and the targets of a name each have a queue; the oldest request counts.
            ages[names[pk]] = max(ages.get(names[pk], 0.0), now - queue.since)
    Measurement.keep(QUEUES, {"ages": ages})
