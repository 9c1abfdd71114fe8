"""Read the tasks that workers offer, and why other workers do not offer them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from registry.catalog.engines import EngineName
from workers.deployments.models import WorkerKey
from workers.offers.models import WorkerRole, WorkerTasks
from workers.offers.values import lack, lacks_sentence

# A worker without a report for this time counts as gone.
PRESENT = timedelta(seconds=90)

# Condition on `w`, a row of `workers_workertasks`, and on the `spec` of a job, which also needs the
# task of the model that judges answers.
OFFERS = """(
    (spec ->> 'task' IS NULL OR w.tasks -> (spec ->> 'task') ->> 'lacks' = '')
    AND (spec ->> 'judge_task' IS NULL OR w.tasks -> (spec ->> 'judge_task') ->> 'lacks' = '')
)"""
# True if the worker `%(worker)s` offers the tasks of a job, or has not reported.
OFFERED_BY_WORKER = f"""(
    NOT EXISTS (SELECT FROM workers_workertasks w WHERE w.worker = %(worker)s)
    OR EXISTS (SELECT FROM workers_workertasks w WHERE w.worker = %(worker)s AND {OFFERS})
)"""  # noqa: S608
# True if any compute worker offers the tasks of a job, or none has reported.
OFFERED = f"""(
    NOT EXISTS (SELECT FROM workers_workertasks w
                 WHERE w.role = 'compute' AND w.seen_at > statement_timestamp() - %(present)s)
    OR EXISTS (SELECT FROM workers_workertasks w
                WHERE w.role = 'compute' AND w.seen_at > statement_timestamp() - %(present)s
                  AND {OFFERS})
)"""  # noqa: S608


def tasks_by_worker() -> dict[str, dict[str, Any]]:
    """Return the latest report of every worker, by its name: its tasks by name."""
    return dict(WorkerTasks.objects.values_list("worker", "tasks"))


@dataclass(frozen=True, slots=True)
class UnofferedTask:
    """A task that a worker has but does not offer."""

    worker: str
    task: str
    package: str
    lacks: str


def unoffered_tasks() -> list[UnofferedTask]:
    """Return the tasks that reporting workers do not offer, and why."""
    since = timezone.now() - PRESENT
    rows = WorkerTasks.objects.filter(seen_at__gt=since).values_list("worker", "tasks")
    return [
        UnofferedTask(worker, name, offer["package"], offer["lacks"])
        for worker, tasks in rows
        for name, offer in tasks.items()
        if offer["lacks"]
    ]


def tasks_needed(spec: dict[str, Any]) -> list[str]:
    """Return the tasks whose packages the run of a job loads."""
    return [spec[name] for name in ("task", "judge_task") if spec.get(name)]


def compute_lacks(needed: Collection[str]) -> str:
    """Return a sentence on why no compute worker can run a job with these tasks; empty if one can
    or none has reported."""
    since = timezone.now() - PRESENT
    rows = WorkerTasks.objects.filter(role=WorkerRole.COMPUTE, seen_at__gt=since)
    reported = dict(rows.values_list("worker", "tasks"))
    return lacks_sentence(needed, reported, "compute worker") if reported else ""


def egress_workers_offer(needed: Collection[str]) -> bool:
    """Return whether an egress worker offers all these tasks."""
    since = timezone.now() - PRESENT
    rows = WorkerTasks.objects.filter(role=WorkerRole.ENGINE, seen_at__gt=since)
    egress = WorkerKey.objects.filter(engines__contains=[EngineName.HOSTED])
    reported = rows.filter(worker__in=egress.values("worker")).values_list("tasks", flat=True)
    return any(not any(lack(tasks, name) for name in needed) for tasks in reported)
