"""The controller's scaling: read the load of scalable deployments, and set their replicas."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import redis
from django.conf import settings
from django.db.models import (
    Avg,
    Count,
    DateTimeField,
    DurationField,
    ExpressionWrapper,
    F,
    Max,
    Q,
    Sum,
)
from django.db.models.functions import Extract, Now
from django.utils import timezone

from governance.usage.models import UsageRecord
from workers.deployments.models import Deployment, ReplicaState
from workers.deployments.states import LIVE
from workers.placement.scaling import Goal, Load, Memory, replicas_next
from workers.queue_ages import Queue, read_queues
from workers.wire import IN_USE_KEY, WANTED_KEY

logger = logging.getLogger(__name__)
WINDOW = timedelta(seconds=60)
# Waits and units of requests that ended within this time count. Short, so that the rate of a
# deployment that has just become too slow is not that of the calm before.
JUST_ENDED = timedelta(seconds=15)
# Seconds for which a request to a deployment that is scaled to zero counts.
REQUESTED_FOR_S = 60.0
REDIS_TIMEOUT_S = 2.0
_TOOK = ExpressionWrapper(F("total_ms") * timedelta(milliseconds=1), output_field=DurationField())
_ENDED_AT = ExpressionWrapper(F("occurred_at") + _TOOK, output_field=DateTimeField())


class Notices(NamedTuple):
    """Notices of gateways: deployments that a request waits for to be loaded, and those that answer
    requests, each with the seconds since it was reported."""

    requested: frozenset[int]
    used: Mapping[int, float]


class Scaler:
    """Runs rounds of scaling, and remembers the use of each deployment between them.

    The memory is valid for the number of replicas that this controller set last: if a person or
    another controller changes that number, it starts again.
    """

    def __init__(self) -> None:
        self._client = redis.Redis.from_url(
            settings.REDIS_URL,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
        )
        self._memory: dict[int, Memory] = {}
        self._wanted: dict[int, int] = {}

    def forget(self) -> None:
        """Forget the use of deployments, because another controller scales them."""
        self._memory, self._wanted = {}, {}

    def run(self) -> int:
        """Set the wanted replicas of scalable deployments; return the number of changes.

        Takes two queries and a few round trips to the broker, and a query for each change. Those
        that are scaled to zero are read only if a gateway has named them. While the broker is
        unreachable, nothing changes.
        """
        now = time.monotonic()
        try:
            notices = self._notices()
            rows = _scalable(notices.requested.union(notices.used))
            queues = read_queues(self._client, [row.pk for row in rows])
        except redis.RedisError as error:
            logger.warning("The load of deployments cannot be read: %s", error)
            return 0
        self._memory = {row.pk: self._remembered(row, now) for row in rows}
        self._wanted = {row.pk: row.replicas_wanted for row in rows}
        if not rows:
            return 0
        loads, changed = _loads(rows, notices, queues), 0
        for row in rows:
            wanted, self._memory[row.pk] = replicas_next(
                replicas=row.replicas_wanted,
                ready=row.ready,  # type: ignore[attr-defined]  # annotated
                goal=Goal(
                    least=row.replicas_min,
                    most=row.replicas_max,
                    queue_age_s=row.queue_age_s,
                    idle_s=settings.PLACEMENT_IDLE_S,
                ),
                load=loads[row.pk],
                memory=self._memory[row.pk],
                now=now,
            )
            if wanted != row.replicas_wanted and _set(row, wanted, loads[row.pk]):
                self._wanted[row.pk] = wanted
                changed += 1
        return changed

    def _remembered(self, row: Deployment, now: float) -> Memory:
        memory = self._memory.get(row.pk)
        if memory is None or self._wanted.get(row.pk) != row.replicas_wanted:
            return Memory(used_at=now)
        return memory

    def close(self) -> None:
        """Close the connection to the broker."""
        self._client.close()

    def _notices(self) -> Notices:
        now = time.time()
        requested_since, used_since = now - REQUESTED_FOR_S, now - WINDOW.total_seconds()
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zrangebyscore(WANTED_KEY, requested_since, "+inf")
            pipe.zremrangebyscore(WANTED_KEY, "-inf", f"({requested_since}")
            pipe.zrangebyscore(IN_USE_KEY, used_since, "+inf", withscores=True)
            pipe.zremrangebyscore(IN_USE_KEY, "-inf", f"({used_since}")
            requested, _removed, in_use, _old = pipe.execute()
        return Notices(
            frozenset(int(each) for each in requested if each.isdigit()),
            {int(each): max(0.0, now - at) for each, at in in_use if each.isdigit()},
        )


def _loads(
    rows: list[Deployment], notices: Notices, queues: Mapping[int, Queue]
) -> dict[int, Load]:
    now, ended = time.time(), _ended([row.name for row in rows])
    loads = {}
    for row in rows:
        queue, answered = queues[row.pk], ended.get(row.name, {})
        # Running requests have no usage record yet; gateways report their deployments.
        used = [answered.get("ago"), notices.used.get(row.pk)]
        loads[row.pk] = Load(
            queued=queue.length,
            oldest_s=0.0 if queue.since is None else max(0.0, now - queue.since),
            waited_s=(answered.get("wait") or 0.0) / 1000,
            rate=(answered.get("units") or 0) / JUST_ENDED.total_seconds(),
            ended_s=min((max(0.0, float(each)) for each in used if each is not None), default=None),
            requested=row.pk in notices.requested,
        )
    return loads


def _ended(names: list[str]) -> dict[str, dict[str, Any]]:
    """Return, of the last minute's requests to each deployment, the seconds since the last end, and
    of those that just ended the units and the mean wait."""
    now = timezone.now()
    just_ended = Q(occurred_at__gte=now - JUST_ENDED - _TOOK)
    recent = UsageRecord.objects.filter(deployment__in=names, occurred_at__gte=now - WINDOW)
    sums = recent.order_by().values("deployment")
    figures = sums.annotate(
        ago=Extract(Now() - Max(_ENDED_AT), "epoch"),
        total=Sum("units", filter=just_ended),
        wait=Avg("queue_ms", filter=just_ended),
    )
    return {
        row["deployment"]: {"ago": row["ago"], "units": row["total"], "wait": row["wait"]}
        for row in figures
    }


def _scalable(asleep: Collection[int]) -> list[Deployment]:
    """Return live deployments whose number of replicas may change, with the count of ready ones. Of
    those that are scaled to zero, only the IDs `asleep` count."""
    ready = Count("replicas", filter=Q(replicas__state=ReplicaState.READY))
    rows = Deployment.objects.filter(
        Q(replicas_wanted__gt=0) | Q(pk__in=asleep), state__in=LIVE
    ).exclude(replicas_min=F("replicas_max"))
    columns = ("name", "replicas_min", "replicas_max", "replicas_wanted", "queue_age_s")
    return list(rows.only(*columns).annotate(ready=ready).order_by("pk"))


def _set(row: Deployment, wanted: int, load: Load) -> int:
    """Set the wanted replicas, unless the settings have changed meanwhile."""
    rows = Deployment.objects.filter(
        pk=row.pk,
        state__in=LIVE,
        replicas_min=row.replicas_min,
        replicas_max=row.replicas_max,
        replicas_wanted=row.replicas_wanted,
    )
    changed = rows.update(replicas_wanted=wanted)
    if changed:
        logger.info(
            "Deployment %s: %s replicas, from %s; requests wait %.1f s, %s are queued",
            row.name, wanted, row.replicas_wanted, load.age_s, load.queued,
        )  # fmt: skip
    return changed
