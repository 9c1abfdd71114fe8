"""Compute the number of replicas of a deployment from the age of its oldest waiting request. Pure:
no database, no clock.

Replicas are added while requests wait for longer than the deployment's target, unless the waits
fall fast enough by themselves. While a replica loads, none is added: its cold start must not count
as a lack of replicas. One of ten is removed, at least one, after a much longer calm period, unless
fewer replicas were too slow at about this load before. With a minimum of zero, the last one is
removed after the configured idle time; the next request brings it back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

# Seconds for which requests must wait too long, with all replicas ready, before some are added.
LATE_FOR_S = 4.0
# Falling waits add no replica if they reach the target within this time.
DRAINED_IN_S = 60.0
# A deployment is calm if nothing is queued and waits are at most this part of the target; replicas
# are removed after so many seconds.
CALM_PART = 0.2
CALM_FOR_S = 300.0
# Replicas are removed only if the rest stays below this part of the rate at which they were late,
# for so long after they were.
SPARE = 0.7
LIMIT_FOR_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Load:
    """Current load of a deployment: `queued` requests, the oldest of which has waited `oldest_s`.

    Of requests that just ended, `waited_s` is the mean wait, in the queue and in the engine, and
    `rate` the units a second. `ended_s` is the time since the last answer. `requested`: a gateway
    waits for it to be loaded.
    """

    queued: int = 0
    oldest_s: float = 0.0
    waited_s: float = 0.0
    rate: float = 0.0
    ended_s: float | None = None
    requested: bool = False

    @property
    def age_s(self) -> float:
        """Seconds that a request waits now."""
        return max(self.oldest_s, self.waited_s)


@dataclass(frozen=True, slots=True)
class Goal:
    """Bounds of the number of replicas, the longest wait `queue_age_s` that adds none, and the time
    without a request, `idle_s`, after which a minimum of zero applies."""

    least: int
    most: int
    queue_age_s: float
    idle_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """State between rounds; times are in seconds of one monotonic clock.

    `used_at`: last use. `late_since`: start of the current period of long waits with all replicas
    ready, which began with waits of `late_age_s`. `calm_since`: start of the current calm period.
    `limit`: the highest rate per replica at which requests waited too long, last at `limit_at`.
    """

    used_at: float
    late_since: float | None = None
    late_age_s: float = 0.0
    calm_since: float | None = None
    limit: float = 0.0
    limit_at: float = 0.0


def replicas_next(
    *, replicas: int, ready: int, goal: Goal, load: Load, memory: Memory, now: float
) -> tuple[int, Memory]:
    """Return the new number of wanted replicas, and the memory for the next round."""
    waits = load.requested or load.queued > 0
    used_at = memory.used_at
    if waits or load.ended_s is not None:
        used_at = max(used_at, now - (0.0 if waits else load.ended_s or 0.0))
    if replicas == 0:
        return (1 if waits else goal.least), Memory(used_at)
    if goal.least == 0 and now - used_at >= goal.idle_s:
        return 0, Memory(used_at)
    memory = _limited(replace(memory, used_at=used_at), load, ready, goal, now)
    memory = _calm(memory, load, goal, now)
    memory, late = _late(memory, load, goal, now, loads=ready < replicas)
    if late and replicas < goal.most:
        step = max(1, math.ceil(replicas * min(load.age_s / goal.queue_age_s - 1, 1.0)))
        return min(goal.most, replicas + step), replace(memory, late_since=None)
    floor = max(goal.least, 1)
    fewer = max(floor, replicas - max(1, replicas // 10))
    calm = memory.calm_since is not None and now - memory.calm_since >= CALM_FOR_S
    if calm and fewer < replicas and load.rate <= _sustained(memory, fewer, now):
        return fewer, replace(memory, calm_since=None)
    return replicas, memory


def _limited(memory: Memory, load: Load, ready: int, goal: Goal, now: float) -> Memory:
    """Remember the rate at which requests wait too long."""
    if load.age_s <= goal.queue_age_s or not ready:
        return memory
    fresh = now - memory.limit_at < LIMIT_FOR_S
    return replace(
        memory, limit=max(load.rate / ready, memory.limit if fresh else 0.0), limit_at=now
    )


def _sustained(memory: Memory, replicas: int, now: float) -> float:
    """Return the rate that so many replicas take easily; infinite if nothing is known."""
    if not memory.limit or now - memory.limit_at >= LIMIT_FOR_S:
        return math.inf
    return SPARE * memory.limit * replicas


def _calm(memory: Memory, load: Load, goal: Goal, now: float) -> Memory:
    if load.queued or load.age_s > CALM_PART * goal.queue_age_s:
        return replace(memory, calm_since=None)
    return memory if memory.calm_since is not None else replace(memory, calm_since=now)


def _late(
    memory: Memory, load: Load, goal: Goal, now: float, *, loads: bool
) -> tuple[Memory, bool]:
    """Return the memory, and whether requests have waited too long for a while and go on to."""
    age_s = load.age_s
    if loads or age_s <= goal.queue_age_s:
        return replace(memory, late_since=None), False
    begun = replace(memory, late_since=now, late_age_s=age_s)
    if memory.late_since is None:
        return begun, False
    passed = now - memory.late_since
    if passed < LATE_FOR_S:
        return memory, False
    falls = (memory.late_age_s - age_s) / passed
    return begun, age_s - goal.queue_age_s > falls * DRAINED_IN_S
