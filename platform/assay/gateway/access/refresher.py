"""Keep the snapshot up to date: read changes on every notice and every `POLL_S` seconds.

A notice `key:<public id>`, or a request with a key that is not cached, causes that key to be read.
Requests with a changed key wait from the notice until it has been read, so a revocation takes
effect as soon as the notice arrives, however long the reading takes. Notices are only hints: every
change is in the database's table of changes. One thread does all readings in turn, outside the
event loop and in small parts, so that the later result wins and keys wait for no long reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import redis.asyncio
from django.conf import settings
from django.db import Error as DatabaseError
from redis.asyncio.client import PubSub

from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.access.key_cache import KeyCache, KnownIds
from assay.gateway.access.reading import (
    Reading,
    advance,
    close_connection,
    first_reading,
    read_keys,
    read_known_ids,
)
from assay.gateway.access.snapshot import Snapshot
from assay.gateway.monitoring.metrics import SNAPSHOT_READ
from governance.errors import Unavailable
from governance.keys.notices import key_in_notice
from workers.wire import SNAPSHOT_CHANNEL

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Longest time between two readings of changes, in seconds.
POLL_S = 0.3
# After a reading of changes the next one waits for so many times as long as it took, within these
# bounds in seconds. So a flood of changes takes a tenth of a core at most. Keys do not wait.
_REST, _REST_LEAST_S, _REST_MOST_S = 9, 0.02, 0.5
# Unknown keys that one process looks up per second. More stay unknown until a change names them,
# so that guessed keys cannot overload the database.
LOOKUPS_PER_S = 20
# Keys in one query. Others wait for the next.
_KEYS_AT_ONCE = 200
_LOOKUP_PATIENCE_S = 2.0
# Pause after a failed reading, in seconds.
_RETRY_S = 0.2
# Cached keys that are read again with each reading of leases, although no change named them.
_KEYS_CHECKED = 20
# Interval at which the IDs of all keys are read again, in seconds.
_KNOWN_S = 3600.0
# A subscription is pinged after this many seconds without a message.
_QUIET_S = 10.0
# Time in which other workers may take over a request whose workers are gone, and the interval at
# which the snapshot is checked for them, in seconds.
_HANDOVER_S, _HANDOVER_CHECK_S = 3.0, 0.2


@dataclass(frozen=True, slots=True)
class Change:
    """Difference between two snapshots: public IDs of keys, and names of deployments. `None`:
    anything may differ, at the latest after each `GATEWAY_SNAPSHOT_TTL_S`."""

    keys: Collection[str] | None
    deployments: Collection[str] | None

    @property
    def whole(self) -> bool:
        """True if anything may differ."""
        return self.keys is None or self.deployments is None

    def concerns(self, public_id: str, deployment: str) -> bool:
        """Return true if a request with this key for this deployment must be checked again."""
        return (
            self.keys is None
            or self.deployments is None
            or public_id in self.keys
            or deployment in self.deployments
        )


# Called after every reading, with the snapshot and its difference from the one before.
OnChange = Callable[[Snapshot, Change], Awaitable[None]]


async def _nobody(snapshot: Snapshot, change: Change) -> None:
    """Placeholder for the receiver of new snapshots until one is set."""


def _known_ids() -> KnownIds:
    return KnownIds(read_known_ids())


class Refresher:
    """Keeps the newest snapshot; `readings` counts those of changes. Start and stop it on one event
    loop.

    `pending` maps changed keys that were not read again yet to the monotonic time of the change.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self.snapshot: Snapshot | None = None
        self.readings = 0
        self.keys = KeyCache()
        self.pending: dict[str, float] = {}
        self.on_change: OnChange = _nobody
        self._wake = asyncio.Event()
        # The time of the next reading of changes, of leases, and of all IDs (monotonic).
        self._due = self._rested = self._liveness_due = self._known_due = 0.0
        self._changed: set[str] = set()
        self._in_reading: set[str] = set()
        self._lookups: dict[str, asyncio.Future[bool]] = {}
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
        if not self._first.is_set():
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
        """Return a snapshot that has the key, if it exists, as of a moment ago.

        Looks up at most `LOOKUPS_PER_S` unknown keys per second, and waits at most two seconds.

        Raises:
            Unavailable: every snapshot is too old, or the key exists or has changed and could not
                be read in time.
        """
        snapshot = await self.current()
        exists = public_id in self.keys.known
        if public_id not in self.pending:
            if public_id in self.keys or self.keys.absent(public_id):
                return snapshot
            if not exists and public_id not in self._lookups and not self._may_look_up():
                return snapshot
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOKUP_PATIENCE_S):
                # A key that changed again while it was read is read again.
                while await asyncio.shield(self._look_up(public_id)) and public_id in self.pending:
                    pass
        unread = exists and public_id not in self.keys and not self.keys.absent(public_id)
        if unread or public_id in self.pending:
            raise Unavailable(
                "The key could not be read from the database, so it is refused.",
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
            entry = None if snapshot is None else snapshot.entry(deployment.id)
            if entry is None:
                return None
            if at_once or set(entry.workers) - set(deployment.workers):
                return entry
            await asyncio.sleep(_HANDOVER_CHECK_S)
        return None

    def _look_up(self, public_id: str) -> asyncio.Future[bool]:
        """Return a future of true once the key was read, or of false if the reading failed."""
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
        while True:
            self._wake.clear()
            failed = True
            try:
                await self._read_keys()
                await self._advance()
                failed = False
            except (DatabaseError, OSError) as error:
                logger.warning("The gateway's snapshot could not be read: %s", error)
            except Exception:
                # After any error the snapshot ages, and the gateway fails closed.
                logger.exception("The gateway's snapshot could not be read.")
            if failed:
                await self._in_thread(close_connection)
            await self._woken(_RETRY_S if failed else 0.0)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _read_keys(self) -> None:
        """Read keys that have changed and those that requests wait for, a part of them."""
        snapshot = self.snapshot
        if snapshot is None or not (self._changed or self._lookups):
            return
        changed = set(list(self._changed)[:_KEYS_AT_ONCE])
        lookups = dict(list(self._lookups.items())[: _KEYS_AT_ONCE - len(changed)])
        self._changed -= changed
        for public_id in lookups:
            del self._lookups[public_id]
        self._in_reading = ids = changed | lookups.keys()
        read = False
        try:
            if lookups:
                # A new key may come with quotas, which the last reading did not see.
                reading = await self._in_thread(advance, snapshot)
                if reading.lost:
                    self._known_due = float("-inf")
                await self._apply(reading, checks=False)
                snapshot = reading.snapshot
                # The reading of keys that follows sees the changes that were just found.
                self._changed -= ids
            entries = await self._in_thread(read_keys, snapshot.limits_by, ids)
            self.keys.update(ids, entries)
            # Those that changed again meanwhile are read again.
            for public_id in ids - self._changed:
                self.pending.pop(public_id, None)
            read = True
        except BaseException:
            self._changed |= ids & self.pending.keys()
            raise
        finally:
            self._in_reading = set()
            for lookup in lookups.values():
                lookup.set_result(read)
        if changed:
            await self._tell(Change(changed, ()))

    def _next_due(self) -> float:
        """Return the time of the next reading of changes, on the monotonic clock."""
        if self.snapshot is None or self.snapshot.unread:
            return self._rested
        return max(self._due, self._rested)

    async def _advance(self) -> None:
        """Read changes, if it is time, and leases and the IDs of all keys, if it is their time."""
        started, snapshot = time.monotonic(), self.snapshot
        if started < self._next_due():
            return
        # Before the reading: a notice during it asks for another.
        self._due = started + min(POLL_S, settings.GATEWAY_SNAPSHOT_TTL_S)
        liveness = started >= self._liveness_due
        if snapshot is None:
            reading = await self._in_thread(first_reading)
        else:
            reading = await self._in_thread(partial(advance, snapshot, liveness=liveness))
        await self._apply(reading, checks=liveness)
        if liveness:
            self._liveness_due = started + settings.GATEWAY_SNAPSHOT_TTL_S
        if reading.lost or started >= self._known_due:
            # After the position was taken: keys that are made from then on are changes.
            self.keys.known = await self._in_thread(_known_ids)
            self._known_due = started + _KNOWN_S
        rest_s = _REST * (time.monotonic() - started) if not reading.snapshot.unread else 0.0
        self._rested = time.monotonic() + min(max(rest_s, _REST_LEAST_S), _REST_MOST_S)

    async def _apply(self, reading: Reading, *, checks: bool) -> None:
        changed = {public_id for public_id in reading.keys if self.keys.changed(public_id)}
        if reading.lost:
            changed |= self.keys.forget()
        self._invalidate(changed)
        if reading.limits:
            self.keys.limit(reading.limits, reading.snapshot.limits_by)
        if checks:
            self._changed |= set(self.keys.next_to_check(_KEYS_CHECKED))
        self.snapshot = replace(reading.snapshot, keys=self.keys)
        self.readings += 1
        if reading.snapshot.read_at > float("-inf"):
            SNAPSHOT_READ.set(time.time() - self.snapshot.age_s)
            self._first.set()
        whole = reading.whole or checks
        await self._tell(Change(None, None) if whole else Change((), reading.deployments))

    def _invalidate(self, public_ids: Collection[str]) -> None:
        """Let requests with these keys wait until they are read again."""
        for public_id in public_ids:
            self._changed.add(public_id)
            self.pending.setdefault(public_id, time.monotonic())
        if public_ids:
            self._wake.set()

    async def _tell(self, change: Change) -> None:
        if self.snapshot is not None:
            try:
                await self.on_change(self.snapshot, change)
            except Exception:
                # Refreshing continues after any error.
                logger.exception("Running requests could not be checked against the new snapshot.")

    async def _woken(self, pause_s: float) -> None:
        """Wait for a notice, a lookup or the time of the next reading; at least `pause_s`."""
        await asyncio.sleep(pause_s)
        if self.snapshot is not None and (self._changed or self._lookups):
            return
        with contextlib.suppress(TimeoutError):
            # A notice may bring the time forward, so it wakes this too.
            await asyncio.wait_for(self._wake.wait(), max(0.0, self._next_due() - time.monotonic()))

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
            # One that is being read now may have been read before its change.
            reading = public_id in self._in_reading or public_id in self._lookups
            if self.keys.changed(public_id) or reading:
                self._invalidate({public_id})
        else:
            self._due = 0.0
            self._wake.set()
