"""Messages to other processes: "something changed, look again". Losing one is harmless."""

from __future__ import annotations

import functools
import logging
import time

import redis
from django.conf import settings

logger = logging.getLogger(__name__)
# A network may have dropped a connection in silence that was not used for this long. A new one
# costs milliseconds, and a command on a dropped one its whole time limit.
QUIET_S = 8.0
_used_at = 0.0


@functools.cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def drop_quiet(client: redis.Redis, used_at: float) -> float:
    """Close the idle connections of a client that was last used long ago, at `used_at` on the
    monotonic clock; return the present time."""
    now = time.monotonic()
    if now - used_at > QUIET_S:
        client.connection_pool.disconnect(inuse_connections=False)
    return now


def notify(channel: str, message: str = "") -> None:
    """Publish `message` on `channel` of `settings.REDIS_URL`.

    Never raises: listeners also poll every few seconds, so a broker outage only delays them.
    Call it in `transaction.on_commit`.
    """
    global _used_at
    client = _client(settings.REDIS_URL)
    _used_at = drop_quiet(client, _used_at)
    try:
        client.publish(channel, message)
    except redis.RedisError as error:
        logger.warning("Could not publish on %s: %s", channel, error)
