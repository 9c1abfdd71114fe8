"""Workers say that they are there, for `assay doctor`.

In place of Celery's remote control, by which whoever can publish on the broker could shut a worker
down or have it read other queues.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

import redis

from workers.broker import broker_client, own_realm
from workers.clock import CLOCK
from workers.transport import DROPPED
from workers.wire import dropped_key, node_of, presence_key

logger = logging.getLogger(__name__)
BEAT_S = 5.0
PATIENCE_S = 20.0
_TIMEOUT_S = 5.0


def workers_present(client: redis.Redis, realms: Iterable[str] = ()) -> list[str]:
    """Return names of workers that gave a sign of life lately, of the control plane and of the
    nodes of these realms.
    """
    since = int(time.time() - PATIENCE_S)
    found = set()
    for realm in ("", *realms):
        names: Any = client.zrange(presence_key(realm), since, "+inf", byscore=True)
        # A node states the names of its own workers alone.
        node = f"{node_of(realm)}/" if realm else ""
        found |= {f"{node}{name.decode(errors='replace')}" for name in names}
    return sorted(found)


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
    client = broker_client(socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
    realm = own_realm()
    key = presence_key(realm)
    while not stop.is_set():
        try:
            now = CLOCK.now()
            with client.pipeline(transaction=False) as pipe:
                pipe.zadd(key, {name: now})
                pipe.zremrangebyscore(key, "-inf", now - 10 * PATIENCE_S)
                if DROPPED.total:
                    pipe.zadd(dropped_key(realm), {name: DROPPED.total})
                pipe.execute()
        except redis.RedisError as error:
            logger.warning("No sign of life was given: %s", error)
        stop.wait(BEAT_S)
    with contextlib.suppress(redis.RedisError):
        client.zrem(key, name)
