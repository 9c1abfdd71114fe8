"""Compute the number of replicas of a deployment from its load. Pure: no database, no clock.

A replica is added when requests have waited for a while although all replicas are ready. One is
removed after a much longer calm period, so that the number does not oscillate. With a minimum of
zero, the last one is removed after the configured idle time; the next request brings it back.
"""

from __future__ import annotations

from dataclasses import dataclass

# A deployment is busy from this many queued requests per replica, or from this mean wait.
BUSY_QUEUED = 4
BUSY_WAIT_MS = 2000.0
# A deployment is calm if nothing is queued and the mean wait is at most this.
CALM_WAIT_MS = 200.0
# Seconds for which a deployment must be busy or calm before its replicas change.
BUSY_FOR_S = 10.0
CALM_FOR_S = 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """Current load of a deployment: `queued` requests; mean wait of the last minute's requests,
    `wait_ms`; seconds since it last answered one, `ended_s`. `requested`: a gateway waits for it to
    be loaded.
    """

    queued: int = 0
    wait_ms: float = 0.0
    ended_s: float | None = None
    requested: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Time of the last use, and the start of the current busy or calm period (None: not in one), in
    seconds of one monotonic clock.
    """

    used_at: float
    busy_since: float | None = None
    calm_since: float | None = None


def replicas_next(
    *,
    replicas: int,
    ready: int,
    least: int,
    most: int,
    load: Load,
    memory: Memory,
    now: float,
    idle_s: float,
) -> tuple[int, Memory]:
    """Return the new number of wanted replicas, and the memory for the next round."""
    waits = load.requested or load.queued > 0
    used_at = memory.used_at
    if waits or load.ended_s is not None:
        used_at = max(used_at, now - (0.0 if waits else load.ended_s or 0.0))
    if replicas == 0:
        return (1 if waits else least), Memory(used_at)
    busy = load.queued >= BUSY_QUEUED * max(ready, 1) or load.wait_ms >= BUSY_WAIT_MS
    calm = not load.queued and load.wait_ms <= CALM_WAIT_MS
    busy_since = (memory.busy_since if memory.busy_since is not None else now) if busy else None
    calm_since = (memory.calm_since if memory.calm_since is not None else now) if calm else None
    after = Memory(used_at, busy_since, calm_since)
    if least == 0 and now - used_at >= idle_s:
        return 0, Memory(used_at)
    if busy_since is not None and now - busy_since >= BUSY_FOR_S and ready >= replicas < most:
        return replicas + 1, Memory(used_at)
    floor = max(least, 1)
    if calm_since is not None and now - calm_since >= CALM_FOR_S and replicas > floor:
        return replicas - 1, Memory(used_at)
    return replicas, after
