"""The order in which jobs are claimed: the department's share, then priority, then age.

A department's share is the number of its running jobs; ties are decided by the device time of its
running jobs and of those that ended in the last `SHARE_HOURS` hours. Priority comes second: before
the share, it would let one department hold up all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.humanize.templatetags.humanize import ordinal
from django.db import connection
from django.utils import timezone

from governance.errors import WrongState
from governance.rowsecurity import lifted
from workers.jobs.budgets import REFERENCE
from workers.jobs.models import Job, JobState
from workers.offers.selectors import (
    OFFERED_BY_WORKER,
    compute_lacks,
    egress_workers_offer,
    tasks_needed,
)

SHARE_HOURS = 6
# A machine that had a job, or a node that reported, within this time counts as working.
OTHERS_LATELY = timedelta(minutes=10)
# Longest time that a job waits for a machine other than the one of its last attempt.
SPARED_FOR = timedelta(hours=1)

# Serializes claims, each of which takes a few milliseconds: two concurrent claims would count the
# same running jobs, and both would take the last place of a department.
LOCK = "LOCK TABLE workers_jobline IN EXCLUSIVE MODE"

SHARES = f"""
running AS (
    SELECT department_id, count(*) AS jobs FROM workers_job
     WHERE state = 'running' AND lease_until >= statement_timestamp() GROUP BY 1
), used AS (
    SELECT department, sum(ms) AS ms FROM (
        SELECT department, device_ms AS ms FROM governance_budgethold
         WHERE ended_at > statement_timestamp() - %(hours)s
        UNION ALL
        SELECT h.department, h.device_ms + 1000 * h.devices * extract(epoch FROM
               statement_timestamp() - coalesce(h.running_since, statement_timestamp()))
          FROM workers_job j
          JOIN governance_budgethold h ON h.reference = {REFERENCE}
         WHERE j.state = 'running' AND h.ended_at IS NULL
    ) held GROUP BY 1
)
"""  # noqa: S608

# Condition for a queued job to be claimable, and the order of such jobs in one department.
CLAIMABLE = """(
    state = 'queued' AND NOT cancel_requested AND attempt - interruptions < %(attempts)s
    AND (dispatches > 0 OR dispatch_after <= statement_timestamp())
)"""
ORDER = "priority DESC, created_at, id"

# A job that calls a provider, and so needs an egress worker.
CALLS_PROVIDER = "(spec ? 'provider')"

# Devices and memory that a job requests of each machine.
DEVICES = "coalesce((spec -> 'resources' ->> 'devices')::integer, 1)"
MEMORY_GIB = "coalesce((spec -> 'resources' ->> 'memory_gib')::integer, 0)"

_FITS = f"""(
    {CALLS_PROVIDER} = %(egress)s
    AND {DEVICES} <= %(devices)s AND {MEMORY_GIB} <= %(memory_gib)s
)"""

# A job that is too large for the machines of the control plane but fits a node: workers of the
# control plane leave it to that node. If no node fits either, they try.
_A_NODES = f"""(
    %(spared)s = '' AND ({DEVICES} > %(own_devices)s OR {MEMORY_GIB} > %(own_memory)s)
    AND EXISTS (
        SELECT FROM workers_node n
         WHERE n.state = 'enrolled' AND n.seen_at > statement_timestamp() - %(lately)s
           AND jsonb_array_length(n.facts -> 'devices') >= {DEVICES}
           AND (n.facts ->> 'memory_bytes')::bigint / 1073741824 >= {MEMORY_GIB}
    )
)"""

# A job with one attempt left, which is offered to another machine first.
LAST_ATTEMPT = """(
    attempt > interruptions AND attempt - interruptions = %(attempts)s - 1
    AND (state <> 'queued'
         OR coalesce(queued_at, created_at) > statement_timestamp() - %(spared_for)s)
)"""

# As above, for the machine of the previous attempt, if the job fits another working machine.
_SPARED = f"""(
    {LAST_ATTEMPT} AND starts_with(worker, %(spared)s)
    AND EXISTS (
        SELECT FROM unnest(%(others_devices)s::bigint[], %(others_memory)s::bigint[])
                    AS others(devices, memory_gib)
         WHERE {DEVICES} <= others.devices AND {MEMORY_GIB} <= others.memory_gib
    )
)"""

# Devices and memory of other machines whose workers run jobs, or did recently. Workers of the
# control plane take jobs of any size.
_OTHERS = """
SELECT DISTINCT
       coalesce(nullif(jsonb_array_length(n.facts -> 'devices'), 0), %(no_limit)s),
       coalesce(nullif((n.facts ->> 'memory_bytes')::bigint / 1073741824, 0), %(no_limit)s)
  FROM workers_job j LEFT JOIN workers_node n ON starts_with(j.worker, n.name || '/')
 WHERE j.worker <> '' AND NOT starts_with(j.worker, %(spared)s)
   AND (j.state = 'running' OR j.finished_at >= statement_timestamp() - %(lately)s)
   AND (n.id IS NULL OR n.state = 'enrolled')
"""

# Locks the first job of each department's line, and skips one that a person is canceling at this
# moment. NO KEY: rows that refer to a job may be added meanwhile.
_CLAIM = f"""
WITH {SHARES}, first AS (
    SELECT job.* FROM governance_department d CROSS JOIN LATERAL (
        SELECT id, department_id, priority, created_at, '' AS silent FROM workers_job
         WHERE department_id = d.id AND {CLAIMABLE}
           AND {_FITS} AND NOT {_SPARED} AND NOT {_A_NODES} AND {OFFERED_BY_WORKER}
         ORDER BY {ORDER} LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ) job
), lost AS (
    SELECT id, department_id, priority, created_at, worker AS silent FROM workers_job
     WHERE state = 'running' AND lease_until < statement_timestamp() AND NOT cancel_requested
       AND stop_request <> 'pause'
       AND attempt - interruptions < %(attempts)s AND NOT {_SPARED}
       AND {_FITS} AND NOT {_A_NODES} AND {OFFERED_BY_WORKER}
       FOR NO KEY UPDATE SKIP LOCKED
), best AS (
    SELECT c.id, c.silent FROM (SELECT * FROM first UNION ALL SELECT * FROM lost) c
      JOIN governance_department d ON d.id = c.department_id
      LEFT JOIN running r ON r.department_id = d.id
      LEFT JOIN used u ON u.department = d.slug
     WHERE coalesce(r.jobs, 0) < coalesce(d.jobs_at_once, %(at_once)s)
     ORDER BY coalesce(r.jobs, 0), coalesce(u.ms, 0), c.priority DESC, c.created_at, c.id
     LIMIT 1
)
UPDATE workers_job j
   SET state = 'running', fence = fence + 1, attempt = attempt + 1, worker = %(worker)s,
       lease_until = statement_timestamp() + %(lease)s,
       started_at = COALESCE(started_at, statement_timestamp()), error = '',
       claimed_at = statement_timestamp(), stop_request = '', stop_reason = ''
  FROM best WHERE j.id = best.id
RETURNING j.id, j.fence, j.attempt, j.kind, j.title, best.silent
"""  # noqa: S608

_FULL = """
SELECT d.id FROM governance_department d JOIN workers_job j ON j.department_id = d.id
 WHERE j.state = 'running' AND j.lease_until >= statement_timestamp()
 GROUP BY d.id HAVING count(*) >= coalesce(d.jobs_at_once, %(at_once)s)
"""

# Running and queued jobs of each department, and the queued ones that it would run earlier.
_LINES = f"""
WITH {SHARES}, queued AS (
    SELECT department_id, count(*) AS jobs,
           count(*) FILTER (WHERE priority > %(priority)s OR
               priority = %(priority)s AND (created_at, id) < (%(at)s, %(id)s)) AS earlier
      FROM workers_job WHERE state = 'queued' AND NOT cancel_requested GROUP BY 1
)
SELECT d.id, coalesce(d.jobs_at_once, %(at_once)s), coalesce(r.jobs, 0), coalesce(u.ms, 0),
       coalesce(q.jobs, 0), coalesce(q.earlier, 0),
       EXISTS (SELECT FROM workers_job WHERE state = 'running' AND stop_request = 'preempt'
                  AND yields_to = %(id)s)
  FROM governance_department d
  LEFT JOIN running r ON r.department_id = d.id
  LEFT JOIN used u ON u.department = d.slug
  LEFT JOIN queued q ON q.department_id = d.id
 WHERE q.department_id IS NOT NULL OR d.id = %(department)s
"""  # noqa: S608
_NO_LIMIT = 2**31 - 1


def common() -> dict[str, Any]:
    """Return the parameters of `SHARES`, `CLAIMABLE`, `LAST_ATTEMPT` and the department limit."""
    return {
        "attempts": settings.JOB_MAX_ATTEMPTS,
        "spared_for": SPARED_FOR,
        "hours": timedelta(hours=SHARE_HOURS),
        "at_once": settings.JOBS_AT_ONCE or _NO_LIMIT,
    }


@dataclass(frozen=True, slots=True)
class Bound:
    """Limits for workers whose names begin with `prefix`: concurrent jobs, and the devices and
    memory that one job may request (None: unlimited)."""

    prefix: str
    jobs: int
    devices: int | None = None
    memory_gib: int | None = None


def first_claim(
    *, worker: str, bound: Bound | None = None, egress: bool = False
) -> tuple[UUID, int, int, str, str, str] | None:
    """Move the first claimable job to `running` in the caller's transaction. An egress worker gets
    only jobs that call providers, and others get none of these.

    Returns:
        Its ID, fence, attempt, kind and title, and the worker whose lease on it had run out; None
        when no job is claimable.

    Raises:
        WrongState: the bound is reached.
    """
    values = {
        **common(),
        "worker": worker[:120],
        "egress": egress,
        "lease": timedelta(seconds=settings.JOB_LEASE_S),
        "devices": (bound and bound.devices) or _NO_LIMIT,
        "memory_gib": (bound and bound.memory_gib) or _NO_LIMIT,
        "spared": bound.prefix if bound else "",
        "own_devices": settings.JOB_MAX_DEVICES,
        "own_memory": settings.JOB_MAX_MEMORY_GIB or _NO_LIMIT,
        "lately": OTHERS_LATELY,
    }
    others = _others(bound.prefix) if bound else []
    values["others_devices"] = [devices for devices, _ in others]
    values["others_memory"] = [memory_gib for _, memory_gib in others]
    with connection.cursor() as cursor:
        cursor.execute(LOCK)
        if bound is not None:
            _check_bound(bound)
        cursor.execute(_CLAIM, values)
        row: tuple[UUID, int, int, str, str, str] | None = cursor.fetchone()
    return row


def _others(prefix: str) -> list[tuple[int, int]]:
    """Return the devices and GiB of memory of other working machines.

    A job's last attempt is left to them if it fits, so that one machine cannot use up all.
    """
    values: dict[str, Any] = {"spared": prefix, "lately": OTHERS_LATELY, "no_limit": _NO_LIMIT}
    with connection.cursor() as cursor:
        cursor.execute(_OTHERS, values)
        return list(cursor.fetchall())


def _check_bound(bound: Bound) -> None:
    """Raise WrongState if the workers run as many jobs as they may, including jobs whose lease has
    run out and that the controller has not taken back yet."""
    running = Job.objects.filter(state=JobState.RUNNING, worker__startswith=bound.prefix).count()
    if running >= bound.jobs:
        raise WrongState(
            f"Workers {bound.prefix}… run {running} of {bound.jobs} jobs.",
            hint="Raise ASSAY_NODE_JOBS_AT_ONCE.",
        )


def full_departments() -> list[int]:
    """Return the IDs of departments that run as many jobs as they may."""
    with connection.cursor() as cursor:
        cursor.execute(_FULL, common())
        return [row[0] for row in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class _Line:
    """Jobs of one department relative to a queued job: `earlier` ones are claimed before it, and
    `makes_way` says that a running job has been requested to make way for it."""

    department: int
    at_once: int
    running: int
    used_ms: int
    queued: int
    earlier: int
    makes_way: bool

    @property
    def room(self) -> int:
        return max(0, self.at_once - self.running)

    def ahead_of(self, own: _Line) -> int:
        """Return how many jobs of this line are claimed before the job of `own`, if none ends."""
        level = own.running + own.earlier
        tie = 1 if self.used_ms < own.used_ms else 0
        return max(0, min(self.queued, self.room, level - self.running + tie))


def job_waits(job: Job) -> str:
    """Return a sentence that says why a queued job does not run yet; empty for other states.

    The place in line counts jobs of all departments, and assumes that none ends or is added.
    """
    if job.state != JobState.QUEUED:
        return ""
    if job.dispatches == 0 and job.dispatch_after > timezone.now():
        return f"The next attempt starts {_moment(job.dispatch_after)} or later."
    if "provider" in job.spec:
        if not egress_workers_offer(tasks_needed(job.spec)):
            return f"Waits for an egress worker that offers the task {job.spec.get('task')}."
    elif lacks := compute_lacks(tasks_needed(job.spec)):
        return f"Waits for a worker. {lacks}"
    values = {
        **common(),
        "priority": job.priority,
        "at": job.created_at,
        "id": job.pk,
        "department": job.department_id,
    }
    with lifted(), connection.cursor() as cursor:
        cursor.execute(_LINES, values)
        lines = [_Line(*row) for row in cursor.fetchall()]
    own = next(line for line in lines if line.department == job.department_id)
    place = own.earlier + 1
    name = job.department.name
    if place > own.room:
        full = f"{own.running:,} of {own.at_once:,} jobs of {name} run"
        return f"Waits: {full}. {ordinal(place)} in line of {name}."
    place += sum(line.ahead_of(own) for line in lines if line is not own)
    if own.makes_way:
        return "Next in line. A running job writes a checkpoint to make way for it."
    return "Next in line." if place == 1 else f"{ordinal(place)} in line."


def _moment(at: datetime) -> str:
    return f"at {timezone.localtime(at):%H:%M:%S} UTC"
