"""Keeps the snapshot young: reads it on every notice and at least once in its time to live."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor

import redis.asyncio
from django.conf import settings
from django.db import Error as DatabaseError

from assay.gateway.metrics import SNAPSHOT_AGE
from assay.gateway.snapshot import Snapshot, close_connection, read_snapshot
from governance.errors import Unavailable
from workers.wire import SNAPSHOT_CHANNEL

logger = logging.getLogger(__name__)


class Refresher:
    """Holds the newest snapshot; `readings` counts them. Start and stop it on one event loop."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._snapshot: Snapshot | None = None
        self.readings = 0
        self._stale = asyncio.Event()
        self._first = asyncio.Event()
        # One thread, so that there is one database connection and readings come in order.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="assay-snapshot")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._refresh()), asyncio.create_task(self._listen())]
        SNAPSHOT_AGE.set_function(self.age_s)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.submit(close_connection)
        await asyncio.to_thread(self._thread.shutdown)

    def age_s(self) -> float:
        """Seconds since the snapshot was read; infinite before the first."""
        return float("inf") if self._snapshot is None else self._snapshot.age_s

    async def current(self) -> Snapshot:
        """The snapshot to decide by. Waits up to two seconds for the very first one.

        Raises:
            Unavailable: there is none that is young enough.
        """
        if self._snapshot is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._first.wait(), 2)
        snapshot = self._snapshot
        if snapshot is None or not snapshot.usable:
            raise Unavailable(
                "Keys and policy could not be read for a while, so no request is let through.",
                retry_after=settings.GATEWAY_SNAPSHOT_TTL_S,
            )
        return snapshot

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._stale.clear()
            try:
                self._snapshot = await loop.run_in_executor(self._thread, read_snapshot)
                self.readings += 1
                self._first.set()
            except (DatabaseError, OSError) as error:
                logger.warning("The gateway's snapshot could not be read: %s", error)
            except Exception:
                # Whatever it is, the snapshot ages and the gateway fails closed.
                logger.exception("The gateway's snapshot could not be read.")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stale.wait(), settings.GATEWAY_SNAPSHOT_TTL_S)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=False) as notices:
                    await notices.subscribe(SNAPSHOT_CHANNEL)
                    while True:
                        # The subscription's own confirmation counts: it may follow a gap.
                        if await notices.get_message(timeout=30) is not None:
                            self._stale.set()
            except (redis.RedisError, OSError) as error:
                logger.warning("Notices of changes are not heard: %s", error)
                await asyncio.sleep(1)
