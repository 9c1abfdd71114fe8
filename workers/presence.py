"""Workers say that they are there, for `assay doctor`.

In place of Celery's remote control, by which whoever can publish on the broker could shut a worker
down or have it read other queues.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import redis
from django.conf import settings

logger = logging.getLogger(__name__)
WORKERS_KEY = "assay:workers"  # a sorted set: names by the moment of the last sign of life
BEAT_S = 5.0
PATIENCE_S = 20.0


def workers_present(client: redis.Redis) -> list[str]:
    """Names of the workers that gave a sign of life lately."""
    now = time.time()
    found: Any = client.zrange(WORKERS_KEY, int(now - PATIENCE_S), "+inf", byscore=True)
    return sorted(name.decode() for name in found)


def start_beating(name: str) -> None:
    """Give a sign of life every few seconds, in a daemon thread, until the process ends."""
    threading.Thread(target=_beat, args=(name,), name="assay-presence", daemon=True).start()


def _beat(name: str) -> None:
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=5)
    while True:
        now = time.time()
        try:
            with client.pipeline(transaction=False) as pipe:
                pipe.zadd(WORKERS_KEY, {name: now})
                pipe.zremrangebyscore(WORKERS_KEY, "-inf", now - 10 * PATIENCE_S)
                pipe.execute()
        except redis.RedisError as error:
            logger.warning("No sign of life was given: %s", error)
        time.sleep(BEAT_S)
