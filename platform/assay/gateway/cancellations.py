"""Notices to engine workers that a request is cancelled."""

from __future__ import annotations

import logging

import redis.asyncio

from workers.sealing import WireKey
from workers.wire import CANCEL_CHANNEL

logger = logging.getLogger(__name__)


class Cancellations:
    """Publishes cancellations to the engine workers."""

    def __init__(self, client: redis.asyncio.Redis, wire: WireKey) -> None:
        self._client = client
        self._wire = wire

    async def publish(self, request_id: str) -> None:
        """Tell the workers that the caller stopped waiting. A lost message costs only compute."""
        try:
            await self._client.publish(CANCEL_CHANNEL, self._wire.cancel_message(request_id))
        except (redis.RedisError, OSError) as error:
            logger.warning("Request %s could not be cancelled: %s", request_id, error)
