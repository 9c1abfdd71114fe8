"""Messages to other processes: "something changed, look again". Losing one is harmless."""

from __future__ import annotations

import functools
import logging

import redis
from django.conf import settings

logger = logging.getLogger(__name__)


@functools.cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def notify(channel: str, message: str = "") -> None:
    """Publish `message` on `channel` of `settings.REDIS_URL`.

    Never raises: listeners also poll every few seconds, so a broker outage only delays them.
    Call it in `transaction.on_commit`.
    """
    try:
        _client(settings.REDIS_URL).publish(channel, message)
    except redis.RedisError as error:
        logger.warning("Could not publish on %s: %s", channel, error)
