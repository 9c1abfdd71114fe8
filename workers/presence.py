"""Workers say that they are there, for `assay doctor`.

In place of Celery's remote control, by which whoever can publish on the broker could shut a worker
down or have it read other queues.
"""

from __future__ import annotations

import contextlib
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
_TIMEOUT_S = 5.0


def workers_present(client: redis.Redis) -> list[str]:
    """Names of the workers that gave a sign of life lately."""
    now = time.time()
    found: Any = client.zrange(WORKERS_KEY, int(now - PATIENCE_S), "+inf", byscore=True)
    return sorted(name.decode() for name in found)


class Presence:
    """Signs of life of one worker every few seconds, from `start` until `end`.

    A worker that ends is gone at once; one that dies, after `PATIENCE_S`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_beat, args=(name, self._stop), name="assay-presence", daemon=True
        )

    def start(self) -> None:
        """Give the first sign, and go on in a daemon thread."""
        self._thread.start()

    def end(self) -> None:
        """Give no more signs, and take the last one back."""
        self._stop.set()
        self._thread.join(_TIMEOUT_S)


def _beat(name: str, stop: threading.Event) -> None:
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
    )
    while not stop.is_set():
        now = time.time()
        try:
            with client.pipeline(transaction=False) as pipe:
                pipe.zadd(WORKERS_KEY, {name: now})
                pipe.zremrangebyscore(WORKERS_KEY, "-inf", now - 10 * PATIENCE_S)
                pipe.execute()
        except redis.RedisError as error:
            logger.warning("No sign of life was given: %s", error)
        stop.wait(BEAT_S)
    with contextlib.suppress(redis.RedisError):
        client.zrem(WORKERS_KEY, name)
