"""Record the reports of workers about their tasks."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from workers.dispatch import wake_controller
from workers.jobs.models import Job, JobState
from workers.offers.models import WORKER_MAX, WorkerRole, WorkerTasks
from workers.offers.values import Offers, offers_to_json

# The report of a worker is deleted after this time of silence.
KEPT = timedelta(hours=1)


@transaction.atomic
def worker_tasks_report(*, worker: str, role: WorkerRole, offers: Offers) -> None:
    """Record the tasks of a worker process, and dispatch jobs that waited for a new one."""
    tasks = offers_to_json(offers)
    before = WorkerTasks.objects.filter(worker=worker[:WORKER_MAX]).values_list("tasks", flat=True)
    earlier: dict[str, dict[str, str]] = next(iter(before), {})
    WorkerTasks.objects.update_or_create(
        worker=worker[:WORKER_MAX],
        defaults={"role": role, "tasks": tasks, "seen_at": timezone.now()},
    )
    new = [
        name
        for name, each in tasks.items()
        if not each["lacks"] and earlier.get(name, {}).get("lacks") != ""
    ]
    if role == WorkerRole.COMPUTE and new:
        waiting = Job.objects.filter(
            state=JobState.QUEUED, dispatches__gt=0, dispatch_after__gt=timezone.now()
        )
        waits_for = Q(spec__task__in=new) | Q(spec__judge_task__in=new)
        waiting.filter(waits_for).update(dispatch_after=timezone.now())
        transaction.on_commit(wake_controller)


@transaction.atomic
def worker_tasks_expire() -> int:
    """Delete reports of workers that were silent for `KEPT`; return the number. Rows that another
    session has locked wait for the next round."""
    late = WorkerTasks.objects.filter(seen_at__lt=timezone.now() - KEPT)
    free = late.select_for_update(skip_locked=True).values_list("pk", flat=True)
    return WorkerTasks.objects.filter(pk__in=list(free)).delete()[0]
