"""Signs of life of workers, for `assay doctor`.

These replace Celery's remote control, with which anyone who can publish on the broker could shut
down a worker or make it read other queues.
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
    """Return the names of workers with a recent sign of life, both outside of nodes and on the
    nodes of these realms.
    """
    since = int(time.time() - PATIENCE_S)
    workers = set()
    for realm in ("", *realms):
        names: Any = client.zrange(presence_key(realm), since, "+inf", byscore=True)
        # A node can only report its own workers, so their names get the prefix of the node.
        node = f"{node_of(realm)}/" if realm else ""
        workers |= {f"{node}{name.decode(errors='replace')}" for name in names}
    return sorted(workers)


class Presence:
    """Sends signs of life of one worker every few seconds, from `start` until `end`.

    A worker that ends is removed at once; one that dies, after `PATIENCE_S`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_beat, args=(name, self._stop), name="assay-presence", daemon=True
        )

    def start(self) -> None:
        """Start sending in a daemon thread."""
        self._thread.start()

    def end(self) -> None:
        """Stop sending, and remove the last sign of life."""
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
            logger.warning("No sign of life was sent: %s", error)
        stop.wait(BEAT_S)
    with contextlib.suppress(redis.RedisError):
        client.zrem(key, name)
