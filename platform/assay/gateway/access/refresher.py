"""Keeps the snapshot young: reads it on every notice and at least once in its time to live.

A notice `key:<public id>` and a request with an unknown key have those keys read alone. From the
notice until that reading nothing is decided by the key as it was known: requests with it wait. So
a revocation holds as soon as its notice is heard, however long readings take. Whole readings and
readings of keys follow one another in one thread, so that the later one holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import redis.asyncio
from django.conf import settings
from django.db import Error as DatabaseError
from redis.asyncio.client import PubSub

from assay.gateway.access.snapshot import (
    DeploymentEntry,
    Snapshot,
    close_connection,
    read_keys,
    read_snapshot,
)
from assay.gateway.monitoring.metrics import SNAPSHOT_READ
from governance.errors import Unavailable
from governance.keys.notices import key_in_notice
from workers.wire import SNAPSHOT_CHANNEL

logger = logging.getLogger(__name__)

# Unknown keys that one process looks up in a second. Guesses beyond that stay unknown until the
# next reading, so that they cannot keep the database busy.
LOOKUPS_PER_S = 20
_LOOKUP_PATIENCE_S = 2.0
# After a reading that failed, while a changed key waits for one, in seconds.
_RETRY_S = 0.2
# A subscription on which nothing came for so long is tried.
_QUIET_S = 10.0
# Time in which a request whose workers are gone learns of others, and the pause between looks (s).
_HANDOVER_S, _HANDOVER_CHECK_S = 3.0, 0.2

# Told of every new snapshot, and of which keys alone it differs (None: of anything).
OnChange = Callable[[Snapshot, Collection[str] | None], Awaitable[None]]


async def _nobody(snapshot: Snapshot, changed: Collection[str] | None) -> None:
    """Placeholder for the receiver of new snapshots until one is set."""


class Refresher:
    """Holds the newest snapshot; `readings` counts them. Start and stop it on one event loop.

    `pending` are the keys that have changed and are not read again yet, and since when (monotonic).
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self.snapshot: Snapshot | None = None
        self.readings = 0
        self.pending: dict[str, float] = {}
        self.on_change: OnChange = _nobody
        self._wake = asyncio.Event()
        self._stale = False
        self._changed: set[str] = set()
        self._lookups: dict[str, asyncio.Future[None]] = {}
        self._lookup_second, self._lookups_left = 0, LOOKUPS_PER_S
        self._first = asyncio.Event()
        # One thread, so that there is one database connection and readings come in order.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="assay-snapshot")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._refresh()), asyncio.create_task(self._listen())]
        # Its age counts from here until the first reading.
        SNAPSHOT_READ.set(time.time())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.submit(close_connection)
        await asyncio.to_thread(self._thread.shutdown)

    async def current(self) -> Snapshot:
        """The snapshot to decide by. Waits up to two seconds for the very first one.

        Raises:
            Unavailable: there is none that is young enough.
        """
        if self.snapshot is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._first.wait(), 2)
        snapshot = self.snapshot
        if snapshot is None or not snapshot.usable:
            raise Unavailable(
                "Keys and policy could not be read for a while, so requests are refused.",
                retry_after=settings.GATEWAY_SNAPSHOT_TTL_S,
            )
        return snapshot

    async def knowing(self, public_id: str) -> Snapshot:
        """The snapshot to decide by about a key that was made or changed a moment ago.

        Looks up at most `LOOKUPS_PER_S` unknown keys a second, and waits two seconds at most.

        Raises:
            Unavailable: every snapshot is too old, or the key has changed and could not be read
                again.
        """
        snapshot = await self.current()
        if public_id not in self.pending:
            if public_id in snapshot.keys:
                return snapshot
            if public_id not in self._lookups and not self._may_look_up():
                return snapshot
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOKUP_PATIENCE_S):
                await asyncio.shield(self._look_up(public_id))
        if public_id in self.pending:
            raise Unavailable(
                "The key has changed and could not be read again, so it is refused.",
                retry_after=1,
            )
        return await self.current()

    async def handed_over(
        self, deployment: DeploymentEntry, *, at_once: bool
    ) -> DeploymentEntry | None:
        """Return the deployment once it has workers that `deployment` lacks; None if it gets none.

        With `at_once`, whatever workers it has now do.
        """
        until = time.monotonic() + _HANDOVER_S
        while time.monotonic() < until:
            snapshot = self.snapshot
            known = None if snapshot is None else snapshot.deployments.get(deployment.name)
            if known is None or known.id != deployment.id:
                return None
            if at_once or set(known.workers) - set(deployment.workers):
                return known
            await asyncio.sleep(_HANDOVER_CHECK_S)
        return None

    def _look_up(self, public_id: str) -> asyncio.Future[None]:
        """Done once the key has been read, or could not be."""
        found = self._lookups.get(public_id)
        if found is None:
            found = self._lookups[public_id] = asyncio.get_running_loop().create_future()
            self._wake.set()
        return found

    def _may_look_up(self) -> bool:
        second = int(time.monotonic())
        if second != self._lookup_second:
            self._lookup_second, self._lookups_left = second, LOOKUPS_PER_S
        self._lookups_left -= 1
        return self._lookups_left >= 0

    async def _refresh(self) -> None:
        whole = True
        while True:
            self._wake.clear()
            snapshot, readings = self.snapshot, self.readings
            lookups, self._lookups = self._lookups, {}
            changed, self._changed = self._changed | lookups.keys(), set()
            try:
                await self._read(whole or self._stale, changed)
                for public_id in changed - self._changed:
                    self.pending.pop(public_id, None)
            except (DatabaseError, OSError) as error:
                logger.warning("The gateway's snapshot could not be read: %s", error)
            except Exception:
                # Whatever it is, the snapshot ages and the gateway fails closed.
                logger.exception("The gateway's snapshot could not be read.")
            finally:
                # Those whose reading failed are still to be read.
                self._changed |= changed & self.pending.keys()
                for lookup in lookups.values():
                    lookup.set_result(None)
            if self.snapshot is not snapshot:
                await self._tell(changed if self.readings == readings else None)
            whole = not await self._woken()

    async def _tell(self, changed: set[str] | None) -> None:
        if self.snapshot is not None:
            try:
                await self.on_change(self.snapshot, changed)
            except Exception:
                # Reading goes on, whatever it is.
                logger.exception("Running requests could not be held against the new snapshot.")

    async def _read(self, whole: bool, changed: set[str]) -> None:
        loop, snapshot = asyncio.get_running_loop(), self.snapshot
        if whole or snapshot is None:
            self._stale = False
            try:
                self.snapshot = await loop.run_in_executor(self._thread, read_snapshot)
            except BaseException:
                # Still to be read, whatever wakes this next.
                self._stale = True
                raise
            self.readings += 1
            SNAPSHOT_READ.set(time.time() - self.snapshot.age_s)
            self._first.set()
        elif changed:
            found = await loop.run_in_executor(self._thread, read_keys, changed)
            kept = {name: key for name, key in snapshot.keys.items() if name not in changed}
            self.snapshot = replace(snapshot, keys={**kept, **found})

    async def _woken(self) -> bool:
        """Wait for a notice or a lookup; False when the snapshot's time to live has run out."""
        snapshot = self.snapshot
        left_s = settings.GATEWAY_SNAPSHOT_TTL_S - (snapshot.age_s if snapshot else 0)
        if self._changed:
            left_s = min(left_s, _RETRY_S)
        try:
            await asyncio.wait_for(self._wake.wait(), max(0.05, left_s))
        except TimeoutError:
            return False
        return True

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=False) as notices:
                    await notices.subscribe(SNAPSHOT_CHANNEL)
                    await self._hear(notices)
            except (redis.RedisError, OSError) as error:
                logger.warning("Notices of changes are not heard: %s", error)
                await asyncio.sleep(1)

    async def _hear(self, notices: PubSub) -> None:
        """Take notices. Raises redis.ConnectionError when the broker is silent: a network may drop
        a connection without a word.
        """
        asked = False
        while True:
            # The subscription's own confirmation counts: it may follow a gap.
            notice = await notices.get_message(timeout=_QUIET_S)
            if notice is not None:
                asked = False
                if notice["type"] != "pong":
                    self._notice(notice)
            elif asked:
                raise redis.ConnectionError(f"The broker did not answer for {_QUIET_S:.0f} s")
            else:
                await notices.ping()
                asked = True

    def _notice(self, notice: dict[str, Any]) -> None:
        if (public_id := key_in_notice(notice["data"])) is not None:
            self._changed.add(public_id)
            self.pending.setdefault(public_id, time.monotonic())
        else:
            self._stale = True
        self._wake.set()
