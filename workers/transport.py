"""kombu's transport for Redis and Valkey, for workers that expect anything on their queues.

kombu takes whatever is on a queue for a message. What is none of Assay's (`workers.envelopes`) is
dropped here and counted, and the worker reads on. Only `app` uses this module.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import RedisError

from workers.envelopes import NotOurs, argument_of, opened

logger = logging.getLogger(__name__)
# Of messages that were dropped, one is logged so often.
_LOGGED_EACH_S = 10.0
# The thread that waits has nothing else to do than to look for other events.
_REFUSED_PAUSE_S = 0.5


class Dropped:
    """Counts what this process has dropped."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()
        self._logged_at = float("-inf")

    def add(self, queue: str, reason: str) -> None:
        """Count one message, and say so from time to time. Nothing of its content is logged."""
        with self._lock:
            self.total += 1
            silent = time.monotonic() - self._logged_at < _LOGGED_EACH_S
            if not silent:
                self._logged_at = time.monotonic()
        if not silent:
            logger.error(
                "A message on %s was dropped, which no process of Assay sends: %s. %d in all.",
                queue, reason, self.total,
            )  # fmt: skip


DROPPED = Dropped()
# Told of a task's argument that was fetched and is not begun, as the worker ends.
_give_back: list[Callable[[Any], None]] = []


def on_give_back(call: Callable[[Any], None]) -> None:
    """Have `call` told of each request that this process has fetched and will not begin."""
    _give_back.append(call)


class Channel(redis.Channel):  # type: ignore[misc]  # kombu has no types
    """Delivers what Assay sends, and drops the rest."""

    def _brpop_read(self, **options: Any) -> bool:
        """As kombu's, which ends the worker when a message is not what it expects."""
        try:
            try:
                found = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            except self.ResponseError as error:
                # A queue became a key of another type, or was withdrawn from a node. Others of this
                # worker are read once it is gone.
                logger.error("The queues cannot be read: %s", error)
                time.sleep(_REFUSED_PAUSE_S)
                raise Empty from error
            if not found:
                raise Empty
            queue = found[0].decode()
            self._queue_cycle.rotate(queue)
            self._take(queue, found[1])
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _take(self, queue: str, data: bytes) -> None:
        try:
            message = opened(queue, data)
        except NotOurs as error:
            DROPPED.add(queue, str(error))
            return
        try:
            self.connection._deliver(message, queue)
        except (OSError, RedisError):
            raise
        except Exception:
            # No message is worth a worker. kombu counts it against what the process may hold.
            logger.exception("A message on %s could not be taken", queue)
            DROPPED.add(queue, "it could not be taken")
            self.qos.reject(message["properties"]["delivery_tag"])

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        """Give back what is not begun, or came from a queue that is read no more. Workers write to
        no queue.
        """
        for call in _give_back:
            call(argument_of(message._raw))


class Transport(redis.Transport):  # type: ignore[misc]
    """The transport of all workers."""

    Channel = Channel


def install() -> None:
    """Have kombu use it for the broker's URLs."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
