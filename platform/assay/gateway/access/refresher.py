"""Refresh the snapshot on every notice, and at least once in its time to live.

A notice `key:<public id>`, or a request with an unknown key, causes only that key to be read.
Requests with a changed key wait from the notice until it has been read, so a revocation takes
effect as soon as the notice arrives, however long the reading takes. One thread does full readings
and readings of keys in turn, so that the later result wins.
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

# Unknown keys that one process looks up per second. More stay unknown until the next full reading,
# so that guessed keys cannot overload the database.
LOOKUPS_PER_S = 20
_LOOKUP_PATIENCE_S = 2.0
# Pause after a failed reading while a changed key waits for one, in seconds.
_RETRY_S = 0.2
# A subscription is pinged after this many seconds without a message.
_QUIET_S = 10.0
# Time in which other workers may take over a request whose workers are gone, and the interval at
# which the snapshot is checked for them, in seconds.
_HANDOVER_S, _HANDOVER_CHECK_S = 3.0, 0.2

# Called with every new snapshot, and the only keys that changed (None: anything may have changed).
OnChange = Callable[[Snapshot, Collection[str] | None], Awaitable[None]]


async def _nobody(snapshot: Snapshot, changed: Collection[str] | None) -> None:
    """Placeholder for the receiver of new snapshots until one is set."""


class Refresher:
    """Keeps the newest snapshot; `readings` counts full ones. Start and stop it on one event loop.

    `pending` maps changed keys that were not read again yet to the monotonic time of the change.
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
        # A single thread keeps readings in order and uses one database connection.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="assay-snapshot")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._refresh()), asyncio.create_task(self._listen())]
        # The age metric counts from here until the first reading.
        SNAPSHOT_READ.set(time.time())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.submit(close_connection)
        await asyncio.to_thread(self._thread.shutdown)

    async def current(self) -> Snapshot:
        """Return the snapshot to decide by. Waits up to two seconds for the very first one.

        Raises:
            Unavailable: there is none, or it is too old.
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
        """Return a snapshot that is up to date on a key created or changed a moment ago.

        Looks up at most `LOOKUPS_PER_S` unknown keys per second, and waits at most two seconds.

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

        With `at_once`, any workers will do, including the same ones.
        """
        until = time.monotonic() + _HANDOVER_S
        while time.monotonic() < until:
            snapshot = self.snapshot
            entry = None if snapshot is None else snapshot.deployments.get(deployment.name)
            if entry is None or entry.id != deployment.id:
                return None
            if at_once or set(entry.workers) - set(deployment.workers):
                return entry
            await asyncio.sleep(_HANDOVER_CHECK_S)
        return None

    def _look_up(self, public_id: str) -> asyncio.Future[None]:
        """Return a future that is done once the key was read or the reading failed."""
        lookup = self._lookups.get(public_id)
        if lookup is None:
            lookup = self._lookups[public_id] = asyncio.get_running_loop().create_future()
            self._wake.set()
        return lookup

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
                # After any error the snapshot ages, and the gateway fails closed.
                logger.exception("The gateway's snapshot could not be read.")
            finally:
                # Keys whose reading failed must be read again.
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
                # Refreshing continues after any error.
                logger.exception("Running requests could not be checked against the new snapshot.")

    async def _read(self, whole: bool, changed: set[str]) -> None:
        loop, snapshot = asyncio.get_running_loop(), self.snapshot
        if whole or snapshot is None:
            self._stale = False
            try:
                self.snapshot = await loop.run_in_executor(self._thread, read_snapshot)
            except BaseException:
                # Do a full reading next, whatever wakes the loop.
                self._stale = True
                raise
            self.readings += 1
            SNAPSHOT_READ.set(time.time() - self.snapshot.age_s)
            self._first.set()
        elif changed:
            keys = await loop.run_in_executor(self._thread, read_keys, changed)
            unchanged = {name: key for name, key in snapshot.keys.items() if name not in changed}
            self.snapshot = replace(snapshot, keys={**unchanged, **keys})

    async def _woken(self) -> bool:
        """Wait for a notice or a lookup. Return false when the snapshot's time to live is over."""
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
                logger.warning("The gateway cannot receive notices of changes: %s", error)
                await asyncio.sleep(1)

    async def _hear(self, notices: PubSub) -> None:
        """Receive notices. Raises redis.ConnectionError if the broker does not answer a ping: a
        network may drop a connection silently.
        """
        pinged = False
        while True:
            # The confirmation of the subscription counts too: notices before it may be missed.
            notice = await notices.get_message(timeout=_QUIET_S)
            if notice is not None:
                pinged = False
                if notice["type"] != "pong":
                    self._notice(notice)
            elif pinged:
                raise redis.ConnectionError(f"The broker did not answer for {_QUIET_S:.0f} s")
            else:
                await notices.ping()
                pinged = True

    def _notice(self, notice: dict[str, Any]) -> None:
        if (public_id := key_in_notice(notice["data"])) is not None:
            self._changed.add(public_id)
            self.pending.setdefault(public_id, time.monotonic())
        else:
            self._stale = True
        self._wake.set()
