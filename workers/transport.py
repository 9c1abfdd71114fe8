"""Transport of kombu for Redis and Valkey that tolerates anything on the queues of workers.

kombu treats anything on a queue as a message. This transport drops and counts what is not Assay's
(`workers.envelopes`), and reads on. Only `app` uses this module.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

import kombu
from celery.app.amqp import AMQP
from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import RedisError

from workers.envelopes import ForeignMessage, argument_of, read_message

logger = logging.getLogger(__name__)
# Shortest time between two log lines on dropped messages.
_LOGGED_EACH_S = 10.0
# Pause between two attempts to connect. kombu would wait for up to 30 s after a long outage.
CONNECT_EACH_S = 0.5
# The thread may sleep this long, because it only waits for events.
_REFUSED_PAUSE_S = 0.5


class Dropped:
    """Counter of the messages that this process has dropped."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()
        self._logged_at = float("-inf")

    def add(self, queue: str, reason: str) -> None:
        """Count one message, and log that from time to time, without its content."""
        with self._lock:
            self.total += 1
            silent = time.monotonic() - self._logged_at < _LOGGED_EACH_S
            if not silent:
                self._logged_at = time.monotonic()
        if not silent:
            logger.error(
                "Dropped a message on %s that no process of Assay sends: %s. %d in total.",
                queue, reason, self.total,
            )  # fmt: skip


DROPPED = Dropped()
# Called with the argument of each task that was fetched but not begun when the worker ends.
_give_back: list[Callable[[Any], None]] = []


def on_give_back(call: Callable[[Any], None]) -> None:
    """Register `call` for each request that this process has fetched and will not begin."""
    _give_back.append(call)


class Channel(redis.Channel):  # type: ignore[misc]  # kombu has no types
    """Delivers messages of Assay, and drops all others."""

    def _brpop_read(self, **options: Any) -> bool:
        """Replace kombu's method, which ends the worker on an unexpected message."""
        try:
            try:
                answer = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            except self.ResponseError as error:
                # A queue became a key of another type, or access of a node was withdrawn. This
                # worker's other queues are read once that is resolved.
                logger.error("The queues cannot be read: %s", error)
                time.sleep(_REFUSED_PAUSE_S)
                raise Empty from error
            if not answer:
                raise Empty
            queue = answer[0].decode()
            self._queue_cycle.rotate(queue)
            self._take(queue, answer[1])
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _take(self, queue: str, data: bytes) -> None:
        try:
            message = read_message(queue, data)
        except ForeignMessage as error:
            DROPPED.add(queue, str(error))
            return
        try:
            self.connection._deliver(message, queue)
        except (OSError, RedisError):
            raise
        except Exception:
            # A message must not end the worker. Reject it, since kombu counts it against the limit
            # of the process.
            logger.exception("A message on %s could not be taken", queue)
            DROPPED.add(queue, "it could not be taken")
            self.qos.reject(message["properties"]["delivery_tag"])

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        """Give back a message that was not begun, or whose queue is no longer read. Workers do not
        write to queues.
        """
        for call in _give_back:
            call(argument_of(message._raw))


class Transport(redis.Transport):  # type: ignore[misc]
    """Transport of all workers."""

    Channel = Channel


class Connection(kombu.Connection):  # type: ignore[misc]
    """Connection that comes back soon after an outage, however long that was."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """Connect again and again, at short intervals."""
        pauses = {
            "interval_start": CONNECT_EACH_S,
            "interval_step": 0,
            "interval_max": CONNECT_EACH_S,
        }
        return super().ensure_connection(*args, **{**options, **pauses})


class Messaging(AMQP):  # type: ignore[misc]
    """Makes the connections of workers."""

    Connection = Connection


def install() -> None:
    """Make kombu use this transport for the broker's URLs."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
