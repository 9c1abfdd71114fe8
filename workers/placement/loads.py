"""The controller's scaling: read the load of scalable deployments, and set their replicas."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import redis
from django.conf import settings
from django.db.models import Avg, Count, DurationField, ExpressionWrapper, F, Max, Q
from django.db.models.functions import Extract, Now
from django.utils import timezone

from governance.usage.models import UsageRecord
from workers.deployments.models import Deployment, ReplicaState
from workers.deployments.states import LIVE
from workers.placement.scaling import Load, Memory, replicas_next
from workers.wire import IN_USE_KEY, WANTED_KEY, deployment_queue

logger = logging.getLogger(__name__)
WINDOW = timedelta(seconds=60)
# Seconds for which a request to a deployment that is scaled to zero counts.
REQUESTED_FOR_S = 60.0
REDIS_TIMEOUT_S = 2.0
_TOOK = ExpressionWrapper(F("total_ms") * timedelta(milliseconds=1), output_field=DurationField())


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

        Takes two queries and one round trip to the broker, and a query for each change. While the
        broker is unreachable, nothing changes.
        """
        now = time.monotonic()
        rows = list(_scalable())
        self._memory = {row.pk: self._remembered(row, now) for row in rows}
        self._wanted = {row.pk: row.replicas_wanted for row in rows}
        if not rows:
            return 0
        try:
            loads = self._loads(rows)
        except redis.RedisError as error:
            logger.warning("The load of deployments cannot be read: %s", error)
            return 0
        changed = 0
        for row in rows:
            wanted, self._memory[row.pk] = replicas_next(
                replicas=row.replicas_wanted,
                ready=row.ready,  # type: ignore[attr-defined]  # annotated
                least=row.replicas_min,
                most=row.replicas_max,
                load=loads[row.pk],
                memory=self._memory[row.pk],
                now=now,
                idle_s=settings.PLACEMENT_IDLE_S,
            )
            if wanted != row.replicas_wanted and _set(row, wanted):
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

    def _loads(self, rows: list[Deployment]) -> dict[int, Load]:
        now = time.time()
        requested_since, used_since = now - REQUESTED_FOR_S, now - WINDOW.total_seconds()
        with self._client.pipeline(transaction=False) as pipe:
            for row in rows:
                pipe.llen(deployment_queue(row.pk))
            pipe.zrangebyscore(WANTED_KEY, requested_since, "+inf")
            pipe.zremrangebyscore(WANTED_KEY, "-inf", f"({requested_since}")
            pipe.zrangebyscore(IN_USE_KEY, used_since, "+inf", withscores=True)
            pipe.zremrangebyscore(IN_USE_KEY, "-inf", f"({used_since}")
            *queued, requested, _removed, in_use, _old = pipe.execute()
        # Running requests have no usage record yet; gateways report their deployments.
        used = {int(each): max(0.0, now - at) for each, at in in_use if each.isdigit()}
        requested_ids = {int(each) for each in requested if each.isdigit()}
        recent = UsageRecord.objects.filter(
            deployment__in=[row.name for row in rows], occurred_at__gte=timezone.now() - WINDOW
        )
        ended = Extract(Now() - Max(F("occurred_at") + _TOOK), "epoch")
        by_name = recent.order_by().values_list("deployment")
        waits = {
            name: (float(wait), max(0.0, float(ago)))
            for name, wait, ago in by_name.annotate(wait=Avg("queue_ms"), ago=ended)
        }
        return {
            row.pk: Load(
                queued=int(length),
                wait_ms=waits[row.name][0] if row.name in waits else 0.0,
                ended_s=min(
                    (
                        *(waits[row.name][1:] if row.name in waits else ()),
                        *((used[row.pk],) if row.pk in used else ()),
                    ),
                    default=None,
                ),
                requested=row.pk in requested_ids,
            )
            for row, length in zip(rows, queued, strict=True)
        }


def _scalable() -> list[Deployment]:
    """Return live deployments whose number of replicas may change, with the count of ready ones."""
    ready = Count("replicas", filter=Q(replicas__state=ReplicaState.READY))
    rows = Deployment.objects.filter(state__in=LIVE).exclude(replicas_min=F("replicas_max"))
    columns = ("name", "replicas_min", "replicas_max", "replicas_wanted")
    return list(rows.only(*columns).annotate(ready=ready).order_by("pk"))


def _set(row: Deployment, wanted: int) -> int:
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
        logger.info("Deployment %s: %s replicas, from %s", row.name, wanted, row.replicas_wanted)
    return changed
