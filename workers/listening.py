"""Listen to messages of other processes in a thread. Users must poll, since messages may be
lost."""

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
# A connection that was quiet for this long is tested, and replaced if no answer comes within the
# same time again: a network may drop connections silently.
QUIET_S = 10.0
TIMEOUT_S = 5.0


def listen(handlers: Mapping[str, Callable[[str], None]], stop: threading.Event) -> None:
    """Call `handlers[channel](message)` for every message until `stop`; reconnect if the broker was
    unreachable."""
    while not stop.is_set():
        client = broker_client(socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        try:
            with client.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
                subscription.subscribe(*handlers)
                _receive(subscription, handlers, stop)
        except (redis.RedisError, OSError) as error:
            logger.warning("Not listening on %s: %s", ", ".join(handlers), error)
            stop.wait(RETRY_S)
        finally:
            client.close()


def _receive(
    subscription: Any, handlers: Mapping[str, Callable[[str], None]], stop: threading.Event
) -> None:
    """Deliver messages until `stop`. Raises redis.ConnectionError if the broker is silent."""
    received_at, pinged = time.monotonic(), False
    while not stop.is_set():
        message = subscription.get_message(timeout=POLL_S)
        quiet_s = time.monotonic() - received_at
        if message is not None:
            received_at, pinged = time.monotonic(), False
            _deliver(message, handlers)
        elif pinged and quiet_s > 2 * QUIET_S:
            raise redis.ConnectionError(f"The broker did not answer for {QUIET_S:.0f} s")
        elif not pinged and quiet_s > QUIET_S:
            subscription.ping()
            pinged = True


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
    """Start `listen` in a daemon thread, and return the thread."""
    thread = threading.Thread(
        target=listen, args=(handlers, stop), name="assay-listener", daemon=True
    )
    thread.start()
    return thread
