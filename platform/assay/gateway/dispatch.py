"""Requests to engine workers: one Celery message each, and a notice when one is cancelled."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import redis.asyncio

from governance.errors import Unavailable
from workers.celery_message import inference_message
from workers.sealing import WireKey
from workers.wire import CANCEL_CHANNEL, InferenceRequest, deployment_queue

logger = logging.getLogger(__name__)


class Dispatcher:
    """Publishes requests and cancellations."""

    def __init__(self, client: redis.asyncio.Redis, wire: WireKey) -> None:
        self._client = client
        self._wire = wire

    async def publish(self, request: InferenceRequest, sealed: Mapping[str, Any]) -> None:
        """Put the sealed request on its deployment's queue.

        Raises:
            Unavailable: the broker does not take it.
        """
        queue = deployment_queue(request.deployment_id)
        try:
            await self._client.lpush(queue, inference_message(request, sealed))
        except (redis.RedisError, OSError) as error:
            logger.warning("Request %s could not be published: %s", request.request_id, error)
            raise Unavailable(
                "The broker does not take requests; nothing was charged.", retry_after=2
            ) from error

    async def cancel(self, request_id: str) -> None:
        """Tell the workers that the caller stopped waiting. A lost message costs only compute."""
        try:
            await self._client.publish(CANCEL_CHANNEL, self._wire.cancel_message(request_id))
        except (redis.RedisError, OSError) as error:
            logger.warning("Request %s could not be cancelled: %s", request_id, error)
