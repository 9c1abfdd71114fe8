"""A sign of life of this process in the broker, by which gateways tell that it has died.

It is no proof of anything: whoever forges or deletes it can only keep a request waiting until its
deadline, or have it fail.
"""

from __future__ import annotations

import contextlib
import logging
import threading

import redis

from workers.wire import ALIVE_EVERY_S, ALIVE_FOR_MS, alive_key

logger = logging.getLogger(__name__)
TIMEOUT_S = 2.0


def show_life(url: str, public_key: str, stop: threading.Event) -> None:
    """Renew the sign until `stop`, then take it away."""
    client = redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    while True:
        try:
            client.set(alive_key(public_key), "1", px=ALIVE_FOR_MS)
        except redis.RedisError as error:
            logger.warning("The sign of life could not be renewed: %s", error)
        if stop.wait(ALIVE_EVERY_S):
            break
    with contextlib.suppress(redis.RedisError):
        client.delete(alive_key(public_key))
    client.close()
