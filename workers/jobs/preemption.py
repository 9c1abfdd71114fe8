"""Preemption by checkpoint: a running job makes way for the first in line after a long wait.

Off unless `ASSAY_PREEMPT_AFTER_SECONDS` is set. If a dispatched job is first in line and remains
unclaimed, all suitable workers are busy: an idle one would claim it at once.

A job makes way only if the order of the line still puts the waiting job first afterward, so that
two jobs never replace each other in turn: its department runs at least two jobs more than that of
the waiting one, or the waiting one has a higher priority in the same department.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from governance.audit.services import audit_record
from governance.principals import background, service_principal
from workers.jobs.line import (
    CALLS_PROVIDER,
    CLAIMABLE,
    DEVICES,
    LAST_ATTEMPT,
    LOCK,
    MEMORY_GIB,
    ORDER,
    SHARES,
    common,
)
from workers.jobs.models import Job, JobPriority, JobState, StopRequest
from workers.jobs.states import job_subject
from workers.offers.selectors import OFFERED, PRESENT, tasks_by_worker, tasks_needed
from workers.offers.values import lack

logger = logging.getLogger(__name__)
# Shortest run of an attempt before it can be preempted.
LEAST_RUN_S = 600
_CONTROLLER = service_principal("controller")

# Requested devices and memory in GiB per machine, and the number of machines.
_WANTS = f"ARRAY[{DEVICES}, {MEMORY_GIB}, coalesce((spec -> 'resources' ->> 'nodes')::integer, 1)]"

# The node of a worker; empty for those of the control plane.
_NODE = "coalesce(substring(worker FROM '^([^/]+)/'), '')"

_DEPARTMENTS = f"""
WITH {SHARES}
SELECT d.id, d.name, coalesce(d.jobs_at_once, %(at_once)s), coalesce(r.jobs, 0), coalesce(u.ms, 0),
       j.id, j.priority, j.created_at, j.waited, j.wants, j.avoids, j.spec
  FROM governance_department d
  LEFT JOIN running r ON r.department_id = d.id
  LEFT JOIN used u ON u.department = d.slug
  LEFT JOIN LATERAL (
        SELECT id, priority, created_at, CASE WHEN dispatches > 0 THEN extract(
                 epoch FROM statement_timestamp() - coalesce(queued_at, created_at)) ELSE 0 END
               AS waited, {_WANTS} AS wants,
               CASE WHEN {LAST_ATTEMPT} THEN {_NODE} ELSE '' END AS avoids, spec
          FROM workers_job
         WHERE department_id = d.id AND {CLAIMABLE} AND {OFFERED} AND NOT {CALLS_PROVIDER}
         ORDER BY {ORDER} LIMIT 1
  ) j ON true
 WHERE j.id IS NOT NULL OR r.jobs > 0
"""  # noqa: S608

# Jobs on nodes that get no new work may not be preempted: their places would stay empty.
_RUNNING = f"""
SELECT j.id, j.department_id, j.priority, j.claimed_at, j.stop_request, j.cancel_requested,
       j.yields_to, {_WANTS},
       NOT {CALLS_PROVIDER} AND j.checkpoints <> jsonb_build_object()
       AND j.claimed_at < statement_timestamp() - %(least)s
       AND NOT EXISTS (SELECT FROM workers_node n
                        WHERE starts_with(j.worker, n.name || '/') AND n.state <> 'enrolled'),
       {_NODE}, j.worker
  FROM workers_job j WHERE j.state = 'running' AND j.lease_until >= statement_timestamp()
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Waiting:
    """First queued job of a department, which has waited for `waited_s` seconds.

    `wants` are the devices, GiB of memory and machines that it requests. `avoids` is the node of
    its previous attempt, which may not claim the last one. `needs` are the tasks whose packages it
    loads.
    """

    job: UUID
    priority: int
    created_at: datetime
    waited_s: float
    wants: tuple[int, ...] = (1, 0, 1)
    avoids: str = ""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """A department's job limit, running jobs, recent device time in ms, and first queued job."""

    department: int
    name: str
    at_once: int
    running: int
    used_ms: float
    first: Waiting | None


@dataclass(frozen=True, slots=True)
class Running:
    """A running job. `stops`: a person or the controller requested a stop; the controller did so
    for the job `yields_to`. `may_stop`: it has a checkpoint and has run for long enough. `tasks`
    are those that its worker reported; None without a report."""

    job: UUID
    department: int
    priority: int
    claimed_at: datetime | None
    stops: bool
    yields_to: UUID | None
    may_stop: bool
    wants: tuple[int, ...] = (1, 0, 1)
    node: str = ""
    tasks: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The job that makes way, the waiting job, and the departments of both."""

    running: Running
    giver: Line
    waiting: Waiting
    taker: Line

    @property
    def reason(self) -> str:
        """Reason for people of the preempted job; it does not reveal another department's jobs."""
        waited = _duration(self.waiting.waited_s)
        if self.giver.department == self.taker.department:
            word = JobPriority(self.waiting.priority).word
            return (
                f"It makes way for a job of {word} priority of its department, which has waited "
                f"for {waited}."
            )
        return (
            f"It makes way for a job of another department, which has waited for {waited}. "
            f"{self.giver.name} runs {self.giver.running:,} jobs, at least two more than that "
            "department."
        )


def choose(
    lines: Collection[Line], running: Collection[Running], *, after_s: float
) -> Choice | None:
    """Return the next preemption; None if none is allowed, or a place becomes free anyway."""
    by_key = {line.department: line for line in lines}
    if not all(_keep_promise(by_key, job) for job in running if job.stops):
        return None
    overdue = [each for each in _firsts(by_key.values()) if each[1].waited_s >= after_s]
    for taker, waiting in sorted(overdue, key=lambda each: _place(*each)):
        for job in sorted(running, key=lambda job: _standing(by_key, job)):
            if job.may_stop and not job.stops and _first_after(by_key, taker, waiting, job):
                return Choice(job, by_key[job.department], waiting, taker)
    return None


def _firsts(lines: Iterable[Line]) -> list[tuple[Line, Waiting]]:
    return [(line, line.first) for line in lines if line.first is not None]


def _place(line: Line, first: Waiting) -> tuple[Any, ...]:
    """Sort key of a department's first job among those of all departments, as in a claim."""
    return (line.running, line.used_ms, -first.priority, first.created_at, first.job)


def _keep_promise(by_key: dict[int, Line], job: Running) -> bool:
    """Count a stopping job as stopped, and the job that it yields to as running.

    Return False if its place is free for the next in line.
    """
    taker = next(
        (line for line in by_key.values() if line.first and line.first.job == job.yields_to), None
    )
    if job.yields_to is None or taker is None:
        return False
    by_key[taker.department] = replace(taker, running=taker.running + 1, first=None)
    giver = by_key[job.department]
    by_key[giver.department] = replace(giver, running=giver.running - 1)
    return True


def _standing(by_key: Mapping[int, Line], job: Running) -> tuple[Any, ...]:
    """Sort key of jobs to preempt: department furthest over its share, lowest priority, newest."""
    line = by_key[job.department]
    began = job.claimed_at.timestamp() if job.claimed_at else 0.0
    return (-line.running, -line.used_ms, job.priority, -began)


def _first_after(by_key: Mapping[int, Line], taker: Line, waiting: Waiting, job: Running) -> bool:
    """Return whether `waiting` is claimed next once `job` has made way, and stays ahead of it.

    `waiting` fits the machine of `job` if it does not request more.
    """
    if any(more > own for more, own in zip(waiting.wants, job.wants, strict=True)):
        return False
    if waiting.avoids and waiting.avoids == job.node:
        return False
    if job.tasks is not None and any(lack(job.tasks, name) for name in waiting.needs):
        return False
    giver = by_key[job.department]
    if giver.department == taker.department:
        if job.priority >= waiting.priority:
            return False
    elif giver.running - taker.running < 2:
        return False
    after = dict(by_key)
    after[giver.department] = replace(giver, running=giver.running - 1)
    free = [each for each in _firsts(after.values()) if each[0].running < each[0].at_once]
    first = min(free, key=lambda each: _place(*each), default=None)
    return first is not None and first[1] == waiting


def job_preempt_due() -> UUID | None:
    """Request one running job to make way if the first in line has waited for too long.

    Returns:
        The ID of the job that makes way; None if there is none.
    """
    after_s = settings.PREEMPT_AFTER_S
    if not after_s or not _waits_long(after_s):
        return None
    with transaction.atomic():
        # No claims meanwhile: the waiting job must still wait when the other one gets the request.
        with connection.cursor() as cursor:
            cursor.execute(LOCK)
        choice = choose(_lines(), _running(), after_s=after_s)
        if choice is None:
            return None
        # Skip a job that another transaction is changing until the next round, because claims wait
        # for this lock.
        candidates = Job.objects.select_for_update(of=("self",), skip_locked=True).filter(
            pk=choice.running.job, state=JobState.RUNNING, cancel_requested=False, stop_request=""
        )
        job = candidates.select_related("department").first()
        if job is None:
            return None
        job.stop_request = StopRequest.PREEMPT
        job.stop_reason, job.yields_to = choice.reason, choice.waiting.job
        job.save(update_fields=["stop_request", "stop_reason", "yields_to"])
        with background(f"job-{job.pk}", _CONTROLLER):
            audit_record(
                actor=_CONTROLLER,
                action="job:preempt",
                subject=job_subject(job),
                reason=choice.reason,
                department=job.department.slug,
                data={**_waiting_job(choice), "attempt": job.attempt, "fence": job.fence},
            )
    logger.info("Job %s makes way for job %s", job.pk, choice.waiting.job)
    return job.pk


def _waiting_job(choice: Choice) -> dict[str, str]:
    """Return the waiting job for the audit event, which only its own department may read."""
    if choice.taker.department != choice.giver.department:
        return {}
    return {"for": str(choice.waiting.job)}


def _waits_long(after_s: int) -> bool:
    since = timezone.now() - timedelta(seconds=after_s)
    queued = Job.objects.filter(state=JobState.QUEUED, dispatches__gt=0)
    return queued.filter(Q(queued_at__lt=since) | Q(queued_at=None, created_at__lt=since)).exists()


def _lines() -> list[Line]:
    with connection.cursor() as cursor:
        values: dict[str, Any] = {**common(), "present": PRESENT}
        cursor.execute(_DEPARTMENTS, values)
        rows = cursor.fetchall()
    return [
        Line(
            department=department,
            name=name,
            at_once=at_once,
            running=running,
            used_ms=float(used_ms),
            first=None if first[0] is None else _waiting(*first),
        )
        for department, name, at_once, running, used_ms, *first in rows
    ]


def _waiting(
    job: UUID,
    priority: int,
    created_at: datetime,
    waited_s: Any,
    wants: list[int],
    avoids: str,
    spec: str,
) -> Waiting:
    needs = tuple(tasks_needed(json.loads(spec)))
    return Waiting(job, priority, created_at, float(waited_s), tuple(wants), avoids, needs)


def _running() -> list[Running]:
    values: dict[str, Any] = {"least": timedelta(seconds=LEAST_RUN_S)}
    tasks = tasks_by_worker()
    with connection.cursor() as cursor:
        cursor.execute(_RUNNING, values)
        return [
            Running(
                job=row[0],
                department=row[1],
                priority=row[2],
                claimed_at=row[3],
                stops=bool(row[4]) or row[5],
                yields_to=row[6] if row[4] else None,
                wants=tuple(row[7]),
                may_stop=bool(row[8]),
                node=row[9],
                tasks=tasks.get(row[10]),
            )
            for row in cursor.fetchall()
        ]


def _duration(seconds: float) -> str:
    count, unit = (round(seconds / 60), "minute") if seconds >= 60 else (round(seconds), "second")
    return f"{count:,} {unit}{'' if count == 1 else 's'}"
