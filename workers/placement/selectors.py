"""Read placement: workers of a deployment, the memory that it needs, and room of workers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from registry.versions.models import ModelVersion
from workers.deployments.models import Deployment, Replica, ReplicaState
from workers.placement.needs import Layer, need_of
from workers.placement.planning import Availability, Need, Worker, used_memory
from workers.placement.reading import (
    copies_assigned,
    deployments_assignable,
    desired_deployments,
    workers_reporting,
)


@dataclass(frozen=True, slots=True)
class Place:
    """A worker that has a deployment or must load it. `reason` says why the worker was chosen;
    empty for a copy that leaves. `replica` is the worker's report, None before the first one."""

    worker: str
    reason: str
    since: datetime
    replica: Replica | None


@dataclass(frozen=True, slots=True)
class Room:
    """A worker with its memory for models, and the number of assigned bytes."""

    worker: Worker
    used: int

    @property
    def free(self) -> int:
        """Return the number of unassigned bytes."""
        return max(0, self.worker.memory - self.used)

    @property
    def labels(self) -> list[str]:
        """Return the labels of the worker, sorted."""
        return sorted(self.worker.labels)

    @property
    def takes_more(self) -> bool:
        """Return whether the worker may get more deployments."""
        return self.worker.availability is Availability.OPEN


def places_of(deployment: Deployment) -> list[Place]:
    """Return the workers of a deployment, longest assigned first, then those that it leaves.

    Uses only the prefetched placements and replicas.
    """
    reported = {
        replica.worker: replica
        for replica in deployment.replicas.all()
        if replica.state != ReplicaState.STOPPED
    }
    assigned = [
        Place(row.worker, row.reason, row.since, reported.pop(row.worker, None))
        for row in deployment.placements.all()
    ]
    leaving = [
        Place(replica.worker, "", replica.started_at, replica)
        for replica in reported.values()
        if replica.state == ReplicaState.READY
    ]
    return assigned + leaving


def need_of_deployment(deployment: Deployment) -> Need:
    """Return the memory that one copy needs."""
    release, layers = deployment.release, []
    version: ModelVersion | None = release.version
    while version is not None:
        layers.append(Layer(version.kind, version.digest, version.size_bytes))
        version = version.base
    task = release.version.model.task
    return need_of(layers, task=task, engine=release.engine, precision=release.precision)


def rooms() -> dict[str, Room]:
    """Return the room of each reporting worker by name, with a fixed number of queries."""
    workers = workers_reporting()
    copies = copies_assigned()
    used = used_memory(desired_deployments(deployments_assignable(copies)), copies)
    return {each.name: Room(each, used.get(each.name, 0)) for each in workers}
