"""Decide how many replicas a deployment is to have, from its load. Pure: no database, no clock.

A replica is added when requests have waited for a while although all replicas are ready, and one
is removed after a much longer calm, so that the number does not swing. With a minimum of zero, the
last one is removed after a stated idle time; the next request brings it back.
"""

from __future__ import annotations

from dataclasses import dataclass

# Requests in the queue for each replica, or their mean wait, from which a deployment is busy.
BUSY_QUEUED = 4
BUSY_WAIT_MS = 2000.0
# It is calm below both: nothing queued, and a mean wait of at most this.
CALM_WAIT_MS = 200.0
# Time for which it has to be so, in seconds.
BUSY_FOR_S = 10.0
CALM_FOR_S = 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """Facts about one deployment now. `queued` requests wait in its queue, those of the last minute
    waited `wait_ms` on average, and it was last answering one `ended_s` seconds ago. `requested`: a
    gateway waits for it to be loaded.
    """

    queued: int = 0
    wait_ms: float = 0.0
    ended_s: float | None = None
    requested: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Since when it has been busy or calm without a break, and when it was used last, in seconds of
    one monotonic clock. None: it is not.
    """

    used_at: float
    busy_since: float | None = None
    calm_since: float | None = None


def replicas_next(
    *,
    wanted: int,
    ready: int,
    least: int,
    most: int,
    load: Load,
    memory: Memory,
    now: float,
    idle_s: float,
) -> tuple[int, Memory]:
    """Return how many replicas are wanted from now on, and what to remember for the next round."""
    waits = load.requested or load.queued > 0
    used_at = memory.used_at
    if waits or load.ended_s is not None:
        used_at = max(used_at, now - (0.0 if waits else load.ended_s or 0.0))
    if wanted == 0:
        return (1 if waits else least), Memory(used_at)
    busy = load.queued >= BUSY_QUEUED * max(ready, 1) or load.wait_ms >= BUSY_WAIT_MS
    calm = not load.queued and load.wait_ms <= CALM_WAIT_MS
    busy_since = (memory.busy_since if memory.busy_since is not None else now) if busy else None
    calm_since = (memory.calm_since if memory.calm_since is not None else now) if calm else None
    after = Memory(used_at, busy_since, calm_since)
    if least == 0 and now - used_at >= idle_s:
        return 0, Memory(used_at)
    if busy_since is not None and now - busy_since >= BUSY_FOR_S and ready >= wanted < most:
        return wanted + 1, Memory(used_at)
    floor = max(least, 1)
    if calm_since is not None and now - calm_since >= CALM_FOR_S and wanted > floor:
        return wanted - 1, Memory(used_at)
    return wanted, after
