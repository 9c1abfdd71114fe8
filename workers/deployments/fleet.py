"""Worker processes as recorded in the database: replicas, jobs, and last report."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from governance.principals import Principal
from workers.deployments.models import Replica, ReplicaState
from workers.deployments.selectors import deployments_visible_to
from workers.deployments.services import REPLICA_SILENCE_S
from workers.dispatch import queued_requests
from workers.jobs.models import Job, JobState
from workers.jobs.selectors import jobs_visible_to
from workers.placement.selectors import Room, rooms

SHOWN = 500


@dataclass(slots=True)
class Worker:
    """One worker process.

    `seen_at` is its latest sign of life, or None. `room` is its memory for models; None if it loads
    none or is silent. `queued` is the number of requests waiting for its deployments, including
    those that another worker may take; None without a broker.
    """

    name: str
    replicas: list[Replica] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    seen_at: datetime | None = None
    room: Room | None = None
    queued: int | None = None

    @property
    def is_silent(self) -> bool:
        """Return whether the worker has not reported for too long."""
        return (
            self.seen_at is not None
            and (timezone.now() - self.seen_at).total_seconds() > REPLICA_SILENCE_S
        )

    @property
    def ready(self) -> int:
        """Return the number of ready replicas."""
        return sum(replica.state == ReplicaState.READY for replica in self.replicas)


@dataclass(frozen=True, slots=True)
class WorkerList:
    """Workers by name. `is_cut`: some of their replicas or jobs are not shown."""

    workers: list[Worker]
    is_cut: bool
    shown: int


def workers_visible_to(actor: Principal, *, node: str = "") -> WorkerList:
    """Return a node's reporting engine workers, and all its workers with a replica or job that the
    actor may see. Without a node, return those of the control plane's own machine.
    """
    own = Q(worker__startswith=f"{node}/") if node else ~Q(worker__contains="/")
    workers = {
        name: Worker(name, room=room)
        for name, room in rooms().items()
        if (name.startswith(f"{node}/") if node else "/" not in name)
    }
    replicas = (
        Replica.objects.filter(
            own, deployment__in=deployments_visible_to(actor).order_by().values("pk")
        )
        .exclude(state=ReplicaState.STOPPED)
        .select_related("deployment__release__version__model")
        .order_by("worker", "deployment__name")
    )
    loaded = list(replicas[: SHOWN + 1])
    for replica in loaded[:SHOWN]:
        worker = workers.setdefault(replica.worker, Worker(replica.worker))
        worker.replicas.append(replica)
        worker.seen_at = max(replica.heartbeat_at, worker.seen_at or replica.heartbeat_at)
    queued = queued_requests({replica.deployment_id for replica in loaded[:SHOWN]})
    if queued is not None:
        for worker in workers.values():
            worker.queued = sum(queued[each.deployment_id] for each in worker.replicas)
    running = jobs_visible_to(actor).filter(own, state=JobState.RUNNING).exclude(worker="")
    active = list(running.order_by("worker", "pk")[: SHOWN + 1])
    for job in active[:SHOWN]:
        worker = workers.setdefault(job.worker, Worker(job.worker))
        worker.jobs.append(job)
        if job.lease_until is not None:
            renewed_at = job.lease_until - timedelta(seconds=settings.JOB_LEASE_S)
            worker.seen_at = max(renewed_at, worker.seen_at or renewed_at)
    is_cut = max(len(loaded), len(active)) > SHOWN
    return WorkerList([workers[name] for name in sorted(workers)], is_cut, SHOWN)
