"""Requests to engine workers: one Celery message each, and a notice when one is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis.asyncio

from governance.errors import Unavailable
from workers.app import app
from workers.sealing import WireKey
from workers.wire import CANCEL_CHANNEL, INFERENCE_TASK, InferenceRequest, deployment_queue

logger = logging.getLogger(__name__)

_PUBLISH_TIMEOUT_S = 5.0


class Dispatcher:
    """Publishes from a few threads, because Celery's producer blocks."""

    def __init__(self, client: redis.asyncio.Redis, wire: WireKey) -> None:
        self._client = client
        self._wire = wire
        # Publishing is mostly Python: more threads only wait for each other.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="assay-publish")

    async def publish(self, request: InferenceRequest, sealed: Mapping[str, Any]) -> None:
        """Put the sealed request on its deployment's queue.

        Raises:
            Unavailable: the broker does not take it.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PUBLISH_TIMEOUT_S):
                await loop.run_in_executor(self._threads, _send, request, sealed)
        except Exception as error:
            # kombu raises its own, redis-py's and the socket's errors here, by transport.
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

    async def stop(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)


def _send(request: InferenceRequest, sealed: Mapping[str, Any]) -> None:
    app.send_task(
        INFERENCE_TASK,
        args=[sealed],
        queue=deployment_queue(request.deployment_id),
        task_id=request.request_id,
        expires=max(1.0, request.deadline - request.enqueued_at),
        ignore_result=True,
        retry=False,
        # Celery would put an excerpt of the prompt in the message's headers, and so in logs.
        argsrepr=request.request_id,
    )
