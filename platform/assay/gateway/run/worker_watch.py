"""Detect dead engine workers, so that their requests fail long before the deadline.

Every worker process renews a key in the broker. A request waits for the process that took it, or
before that for any process that it was sealed for. Once the keys of all of these have been missing
for a while, the request fails.
"""

from __future__ import annotations

import asyncio
import logging
import time

import redis.asyncio

from assay.gateway.run.reply_streams import Replies
from workers.request_logs import about
from workers.wire import Failed, alive_key

logger = logging.getLogger(__name__)

CHECK_S = 1.0
# A key that is missing for a shorter time may be due to a flush of the broker.
PATIENCE_S = 3.0
_LOST = Failed(
    "worker_lost",
    "The worker of this request stopped before it answered; send the request again.",
    502,
)


class WorkerWatch:
    """Start and stop it on one event loop."""

    def __init__(self, client: redis.asyncio.Redis, replies: Replies) -> None:
        self._client = client
        self._replies = replies
        self._missing: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                await self._check()
            except (redis.RedisError, OSError) as error:
                # The state of workers is unknown; the deadline of each request still applies.
                self._missing.clear()
                logger.warning("Workers cannot be watched: %s", error)

    async def _check(self) -> None:
        holders = self._replies.holders()
        watched = sorted(frozenset().union(*holders.values()))
        if not watched:
            self._missing.clear()
            return
        signs = await self._client.mget([alive_key(worker) for worker in watched])
        now = time.monotonic()
        missing = [worker for worker, sign in zip(watched, signs, strict=True) if sign is None]
        self._missing = {worker: self._missing.get(worker, now) for worker in missing}
        dead = {worker for worker, since in self._missing.items() if now - since >= PATIENCE_S}
        for request_id, workers in holders.items():
            if workers <= dead:
                logger.warning(
                    "The worker of request %s has died", request_id, extra=about(request_id)
                )
                self._replies.fail(request_id, _LOST)
