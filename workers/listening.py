"""A thread that hears what other processes publish. What it misses, its users find by looking."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis

from workers.broker import broker_client

logger = logging.getLogger(__name__)
POLL_S = 1.0
RETRY_S = 1.0
# A connection on which nothing came for so long is tried; one without an answer is made anew after
# as long again. A network may drop it without a word.
QUIET_S = 10.0
TIMEOUT_S = 5.0


def listen(handlers: Mapping[str, Callable[[str], None]], stop: threading.Event) -> None:
    """Call `handlers[channel](message)` for every message until `stop`; connects again when the
    broker was away."""
    while not stop.is_set():
        client = broker_client(socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        try:
            with client.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
                subscription.subscribe(*handlers)
                _hear(subscription, handlers, stop)
        except (redis.RedisError, OSError) as error:
            logger.warning("Not listening on %s: %s", ", ".join(handlers), error)
            stop.wait(RETRY_S)
        finally:
            client.close()


def _hear(
    subscription: Any, handlers: Mapping[str, Callable[[str], None]], stop: threading.Event
) -> None:
    """Deliver messages until `stop`. Raises redis.ConnectionError when the broker is silent."""
    heard, asked = time.monotonic(), False
    while not stop.is_set():
        message = subscription.get_message(timeout=POLL_S)
        quiet_s = time.monotonic() - heard
        if message is not None:
            heard, asked = time.monotonic(), False
            _deliver(message, handlers)
        elif asked and quiet_s > 2 * QUIET_S:
            raise redis.ConnectionError(f"The broker did not answer for {QUIET_S:.0f} s")
        elif not asked and quiet_s > QUIET_S:
            subscription.ping()
            asked = True


def _deliver(message: dict[str, Any], handlers: Mapping[str, Callable[[str], None]]) -> None:
    if message["type"] == "pong":
        return
    channel = message["channel"].decode()
    try:
        handlers[channel](message["data"].decode("utf-8", "replace"))
    except Exception:
        logger.exception("A message on %s could not be handled", channel)


def listener(
    handlers: Mapping[str, Callable[[str], None]], stop: threading.Event
) -> threading.Thread:
    """`listen` in a started daemon thread."""
    thread = threading.Thread(
        target=listen, args=(handlers, stop), name="assay-listener", daemon=True
    )
    thread.start()
    return thread
