"""Measure jobs, the artifact store and the controller's loops, and store the figures."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import Count, Min, Q
from django.utils import timezone

from governance.errors import DomainError
from registry.catalog import codes_here
from workers.deployments.models import Deployment, ReplicaState
from workers.deployments.states import LIVE
from workers.jobs.models import Job, JobState
from workers.jobs.selectors import WAITING
from workers.measurements.loops import LoopTimes
from workers.measurements.models import Measurement
from workers.storage.inspection import store_contents, store_faults

JOBS, REPLICAS, STORE, SOFTWARE = "jobs", "replicas", "store", "software"
# Kept by `assay backup make`.
BACKUP = "backup"
LOOPS, CODE = "loops@", "code@"
# A controller without a report for this time counts as gone.
LOOPS_KEPT = timedelta(minutes=10)
LATELY = timedelta(hours=1)
QUANTILES = (0.5, 0.95)
_ENDED = """
    SELECT kind, state, count(*),
           percentile_cont(%(quantiles)s) WITHIN GROUP (
               ORDER BY extract(epoch FROM started_at - created_at)::float8
           ),
           percentile_cont(%(quantiles)s) WITHIN GROUP (
               ORDER BY extract(epoch FROM finished_at - started_at)::float8
           )
      FROM workers_job
     WHERE finished_at >= %(since)s
     GROUP BY kind, state
"""


def jobs_measure() -> None:
    """Count jobs by kind and state: unfinished ones with the age of the oldest, and those of the
    last hour with quantiles of their waiting and running times in seconds."""
    waiting = (
        Job.objects.filter(state__in=WAITING)
        .order_by()
        .values("kind", "state")
        .annotate(many=Count("pk"), created=Min("created_at"), started=Min("started_at"))
    )
    with connection.cursor() as cursor:
        since = timezone.now() - LATELY
        cursor.execute(_ENDED, {"quantiles": list(QUANTILES), "since": since})
        ended = cursor.fetchall()
    Measurement.keep(
        JOBS,
        {
            "waiting": [
                {
                    "kind": row["kind"],
                    "state": row["state"],
                    "count": row["many"],
                    "since": _began(row).timestamp(),
                }
                for row in waiting
            ],
            "ended": [
                {"kind": kind, "state": state, "count": many, "wait_s": wait, "run_s": run}
                for kind, state, many, wait, run in ended
            ],
        },
    )


def _began(row: Any) -> Any:
    queued = row["state"] == JobState.QUEUED
    return row["created"] if queued else row["started"] or row["created"]


def replicas_measure() -> None:
    """Count the replicas of each live deployment: wanted, ready and pending.

    A replica that leaves its worker counts as ready until it is gone.
    """
    ready = Count("replicas", filter=Q(replicas__state=ReplicaState.READY))
    rows = Deployment.objects.filter(state__in=LIVE).order_by().annotate(ready=ready)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    # A name may have several deployments: its primary and targets.
    for name, wanted, many in rows.values_list("name", "replicas_wanted", "ready"):
        counts[name].update(wanted=wanted, ready=many, pending=max(0, wanted - many))
    Measurement.keep(REPLICAS, {name: dict(count) for name, count in counts.items()})


def store_measure() -> None:
    """Count the contents of the artifact store, and files that are missing or have a wrong size.

    This lists the whole store twice, so it should run only a few times a day. If the store does not
    answer, the figures do not change.
    """
    try:
        contents = store_contents()
        faults = Counter(fault.kind.value for fault in store_faults(hashes=False))
    except DomainError:
        # The metric `assay_store_up` shows the failure.
        return
    Measurement.keep(
        STORE,
        {
            "objects": contents.objects,
            "bytes": contents.bytes,
            "unneeded_bytes": contents.unneeded_bytes,
            "faults": faults,
        },
    )


def loops_measure(times: LoopTimes) -> None:
    """Store the figures of this process's loops and its packages of tasks, and delete those of
    processes that are gone."""
    process = f"{socket.gethostname()[:80]}:{os.getpid()}"
    oldest = timezone.now() - LOOPS_KEPT
    for kind, figures in ((LOOPS, times.figures()), (CODE, codes_here())):
        Measurement.keep(f"{kind}{process}", figures)
        Measurement.objects.filter(name__startswith=kind, measured_at__lt=oldest).delete()


def loops_together(reports: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Return the figures of each loop, from the controller where it succeeded last."""
    together: dict[str, dict[str, float]] = {}
    for report in reports:
        for name, figures in report.items():
            latest = together.get(name)
            if latest is None or figures["succeeded_at"] > latest["succeeded_at"]:
                together[name] = figures
    return together


def age_s(moment: float) -> float:
    """Return the seconds since `moment` (seconds since the epoch); 0 if it is in the future."""
    return max(0.0, time.time() - moment)
