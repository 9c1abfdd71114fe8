"""A thread that hears what other processes publish. What it misses, its users find by looking."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

import redis

from workers.broker import broker_client

logger = logging.getLogger(__name__)
POLL_S = 1.0
RETRY_S = 1.0


def listen(handlers: Mapping[str, Callable[[str], None]], stop: threading.Event) -> None:
    """Call `handlers[channel](message)` for every message until `stop`; connects again when the
    broker was away."""
    while not stop.is_set():
        client = broker_client(socket_connect_timeout=5)
        try:
            with client.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
                subscription.subscribe(*handlers)
                while not stop.is_set():
                    _deliver(subscription.get_message(timeout=POLL_S), handlers)
        except (redis.RedisError, OSError) as error:
            logger.warning("Not listening on %s: %s", ", ".join(handlers), error)
            stop.wait(RETRY_S)
        finally:
            client.close()


def _deliver(
    message: dict[str, bytes] | None, handlers: Mapping[str, Callable[[str], None]]
) -> None:
    if message is None:
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
