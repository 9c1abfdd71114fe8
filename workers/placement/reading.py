"""Read the planner's inputs: workers, wanted copies of deployments, and assignments."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone

from workers.deployments.models import Deployment, Replica, ReplicaState, WorkerKey
from workers.deployments.states import LIVE
from workers.nodes.models import Node, NodeState
from workers.offers.selectors import tasks_by_worker
from workers.placement.models import Placement
from workers.placement.needs import Layer, need_of
from workers.placement.planning import ASLEEP, Availability, Copy, DesiredDeployment, Worker

SILENCE_S = 15
# A worker of a node in another state, such as a revoked one, counts as lost.
_AVAILABILITY: dict[str, Availability] = {
    NodeState.ENROLLED: Availability.OPEN,
    NodeState.CORDONED: Availability.CORDONED,
    NodeState.DRAINING: Availability.DRAINING,
}
# Paths to a version and to the bases below it.
_LAYERS = ("release__version", "release__version__base", "release__version__base__base")
_COLUMNS = (
    "pk",
    "state",
    "message",
    "replicas_wanted",
    "required_labels",
    "required_device",
    "release__engine",
    "release__precision",
    "release__version__model__task",
    *(f"{layer}__{name}" for layer in _LAYERS for name in ("kind", "digest", "size_bytes")),
)


def workers_reporting(*, trusting: bool = False) -> list[Worker]:
    """Return recently reporting workers; with `trusting`, also silent ones, to get nothing new."""
    since = timezone.now() - timedelta(seconds=SILENCE_S)
    states = dict(Node.objects.values_list("name", "state"))
    tasks = tasks_by_worker()
    workers = []
    rows = WorkerKey.objects.all() if trusting else WorkerKey.objects.filter(seen_at__gte=since)
    for row in rows:
        node = node_of(row.worker)
        availability = _AVAILABILITY.get(states.get(node, NodeState.ENROLLED))
        silent = row.seen_at is None or row.seen_at < since
        if availability is None:
            continue
        if silent and availability is Availability.OPEN:
            availability = Availability.CORDONED
        workers.append(
            Worker(
                name=row.worker,
                memory=row.memory,
                node=node,
                device=row.device,
                labels=frozenset(row.labels),
                engines=frozenset(row.engines),
                availability=availability,
                tasks=tasks.get(row.worker),
            )
        )
    return workers


def node_of(worker: str) -> str:
    """Return a worker's machine: its node, or the host if the worker is not on a node."""
    node, separator, _name = worker.partition("/")
    return node if separator else worker.rpartition("@")[2]


def deployments_assignable(copies: Iterable[Copy]) -> list[dict[str, Any]]:
    """Return the deployments that a round may change, with their layers: live ones that want
    copies, and those of `copies`, which may have ended.

    Most of many deployments are scaled to zero and say so already; they are not read.
    """
    asleep = Q(replicas_wanted=0, message=ASLEEP)
    live = Deployment.objects.filter(~asleep, state__in=LIVE)
    rows = {row["pk"]: row for row in live.values(*_COLUMNS)}
    if rest := {copy.deployment for copy in copies} - rows.keys():
        ended = Deployment.objects.filter(pk__in=rest)
        rows |= {row["pk"]: row for row in ended.values(*_COLUMNS)}
    return [rows[pk] for pk in sorted(rows)]


def desired_deployments(rows: list[dict[str, Any]]) -> list[DesiredDeployment]:
    """Return the wanted copies of rows of `deployments_assignable`, and workers to avoid because
    the load recently failed there."""
    avoid: dict[int, set[str]] = {}
    failed = Replica.objects.filter(
        state__in=(ReplicaState.FAILED, ReplicaState.REFUSED),
        retry_at__gt=timezone.now(),
        deployment__state__in=LIVE,
    )
    for pk, worker in failed.values_list("deployment_id", "worker"):
        avoid.setdefault(pk, set()).add(worker)
    return [_of_row(row, frozenset(avoid.get(row["pk"], ()))) for row in rows]


def _of_row(row: dict[str, Any], avoid: frozenset[str]) -> DesiredDeployment:
    layers = [
        Layer(row[f"{layer}__kind"], row[f"{layer}__digest"], row[f"{layer}__size_bytes"])
        for layer in _LAYERS
        if row[f"{layer}__digest"] is not None
    ]
    return DesiredDeployment(
        id=row["pk"],
        need=need_of(
            layers,
            task=row["release__version__model__task"],
            engine=row["release__engine"],
            precision=row["release__precision"],
        ),
        copies=row["replicas_wanted"] if row["state"] in LIVE else 0,
        engine=row["release__engine"],
        device=row["required_device"],
        labels=frozenset(row["required_labels"]),
        avoid=avoid,
        task=row["release__version__model__task"],
    )


def copies_assigned() -> list[Copy]:
    """Return all assignments, each with whether its worker has loaded it."""
    ready = set(
        Replica.objects.filter(state=ReplicaState.READY).values_list("deployment_id", "worker")
    )
    return [
        Copy(pk, worker, since.timestamp(), (pk, worker) in ready)
        for pk, worker, since in Placement.objects.values_list("deployment_id", "worker", "since")
    ]
