"""Alarms about engine workers, beside those of the audit log."""

from __future__ import annotations

from django.db.models import QuerySet

from governance.audit.alarms import Alarm, alarms_add
from workers.deployments.models import Replica, ReplicaState
from workers.deployments.states import LIVE

# Loads that failed in a row before an alarm is raised: a first one may be a restart's.
FAILURES_TOLERATED = 3
_NAMED = 5


def copies_differ() -> str:
    """Name workers whose bytes differ from the manifest while the deployment lives on."""
    rows = Replica.objects.filter(state=ReplicaState.REFUSED, deployment__state__in=LIVE)
    return " ".join(replica.message for replica in _named(rows))


def loads_failing() -> str:
    """Name workers that fail again and again to load a live deployment."""
    rows = Replica.objects.filter(
        state__in=(ReplicaState.FAILED, ReplicaState.LOADING),
        failures__gte=FAILURES_TOLERATED,
        deployment__state__in=LIVE,
    )
    return " ".join(
        f"{replica.worker} failed {replica.failures} times to load {replica.deployment}. "
        f"{replica.message}".rstrip()
        for replica in _named(rows)
    )


def _named(rows: QuerySet[Replica]) -> QuerySet[Replica]:
    return rows.select_related("deployment").order_by("pk")[:_NAMED]


def register_alarms() -> None:
    """Have these watched with the others."""
    alarms_add(
        Alarm("copies_differ", "A worker’s copy of a model differs", copies_differ, critical=True),
        Alarm("loads_failing", "A worker cannot load a deployment", loads_failing),
    )
