"""The controller's duty: assign deployments to engine workers, and state what does not fit.

Reads everything in a fixed number of queries, asks `planning.plan`, and writes what changed in one
transaction. Only one controller does it at a time.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from workers.deployments.models import (
    Deployment,
    DeploymentState,
    Replica,
    ReplicaState,
    WorkerKey,
)
from workers.deployments.states import LIVE
from workers.dispatch import wake_engines
from workers.nodes.models import Node, NodeState
from workers.placement.models import REASON_MAX, Placement
from workers.placement.needs import Layer, need_of
from workers.placement.planning import (
    WAITS,
    Availability,
    Copy,
    Move,
    Plan,
    Wanted,
    Worker,
    plan,
)

logger = logging.getLogger(__name__)
SILENCE_S = 15
# Longest pause between two rounds in which heartbeats could still be seen, in seconds.
PAUSE_S = 10.0
ASLEEP = "Scaled to zero. The next request starts it."
_LOCK = "assay:placement"
# A worker of a node in another state, such as a revoked one, counts as lost.
_AVAILABILITY: dict[str, Availability] = {
    NodeState.ENROLLED: Availability.OPEN,
    NodeState.CORDONED: Availability.CORDONED,
    NodeState.DRAINING: Availability.DRAINING,
}
_BATCH = 500
# Of a version and of the versions that it stands on, each with the path to the next.
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


class Placer:
    """Runs rounds. Keeps only since when it has run without a pause: after one, such as an outage
    of the database, workers had no way to report, and are not taken for lost at once.
    """

    def __init__(self) -> None:
        self._since = self._last = float("-inf")

    def run(self) -> Plan | None:
        """Do one round and return its plan; None while another controller does it."""
        now = time.monotonic()
        if now - self._last > PAUSE_S:
            self._since = now
        found = placements_update(trusting=now - self._since < SILENCE_S)
        self._last = time.monotonic()
        return found


@transaction.atomic
def placements_update(*, trusting: bool = False) -> Plan | None:
    """Plan, and write assignments and messages; return the plan, None while another session does.

    `trusting`: workers that are silent count as there, but get nothing new.
    """
    if not _alone():
        return None
    rows = _deployments()
    found = plan(_workers(trusting), _wanted(rows), _copies())
    _write(found.moves)
    _state_shortages(rows, found.shortages)
    if found.moves:
        transaction.on_commit(wake_engines)
    return found


def _alone() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext(%s))", [_LOCK])
        return bool(cursor.fetchone()[0])


def _workers(trusting: bool) -> list[Worker]:
    since = timezone.now() - timedelta(seconds=SILENCE_S)
    states = dict(Node.objects.values_list("name", "state"))
    found = []
    for row in WorkerKey.objects.all():
        node = node_of(row.worker)
        availability = _AVAILABILITY.get(states.get(node, NodeState.ENROLLED))
        silent = row.seen_at is None or row.seen_at < since
        if availability is None or (silent and not trusting):
            continue
        if silent and availability is Availability.OPEN:
            availability = Availability.CORDONED
        found.append(
            Worker(
                name=row.worker,
                memory=row.memory,
                node=node,
                device=row.device,
                labels=frozenset(row.labels),
                engines=frozenset(row.engines),
                availability=availability,
            )
        )
    return found


def node_of(worker: str) -> str:
    """Return the machine of a worker: its node, or the host of a control plane's own worker."""
    node, separator, _name = worker.partition("/")
    return node if separator else worker.rpartition("@")[2]


def _deployments() -> list[dict[str, Any]]:
    """Return live deployments, and ended ones that are still assigned, with their versions."""
    assigned = Exists(Placement.objects.filter(deployment=OuterRef("pk")))
    rows = Deployment.objects.filter(Q(state__in=LIVE) | assigned)
    return list(rows.order_by("pk").values(*_COLUMNS))


def _wanted(rows: list[dict[str, Any]]) -> list[Wanted]:
    avoid: dict[int, set[str]] = {}
    failed = Replica.objects.filter(
        state__in=(ReplicaState.FAILED, ReplicaState.REFUSED),
        retry_at__gt=timezone.now(),
        deployment__state__in=LIVE,
    )
    for pk, worker in failed.values_list("deployment_id", "worker"):
        avoid.setdefault(pk, set()).add(worker)
    return [_of_row(row, frozenset(avoid.get(row["pk"], ()))) for row in rows]


def _of_row(row: dict[str, Any], avoid: frozenset[str]) -> Wanted:
    layers = [
        Layer(row[f"{layer}__kind"], row[f"{layer}__digest"], row[f"{layer}__size_bytes"])
        for layer in _LAYERS
        if row[f"{layer}__digest"] is not None
    ]
    return Wanted(
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
    )


def _copies() -> list[Copy]:
    ready = set(
        Replica.objects.filter(state=ReplicaState.READY).values_list("deployment_id", "worker")
    )
    return [
        Copy(pk, worker, since.timestamp(), (pk, worker) in ready)
        for pk, worker, since in Placement.objects.values_list("deployment_id", "worker", "since")
    ]


def _write(moves: tuple[Move, ...]) -> None:
    gone = {(move.deployment, move.worker) for move in moves if not move.add}
    if gone:
        rows = Placement.objects.filter(deployment_id__in={pk for pk, _worker in gone})
        found = rows.values_list("pk", "deployment_id", "worker")
        Placement.objects.filter(pk__in=[pk for pk, *pair in found if tuple(pair) in gone]).delete()
    now = timezone.now()
    Placement.objects.bulk_create(
        [
            Placement(
                deployment_id=move.deployment,
                worker=move.worker,
                since=now,
                reason=move.reason[:REASON_MAX],
            )
            for move in moves
            if move.add
        ],
        batch_size=_BATCH,
    )
    for move in moves:
        logger.info(
            "Deployment %s is %s %s: %s",
            move.deployment,
            "assigned to" if move.add else "taken from",
            move.worker,
            move.reason,
        )


def _state_shortages(rows: list[dict[str, Any]], shortages: dict[int, str]) -> None:
    """Write on each live deployment what it lacks. Locked rows wait for the next round."""
    said = {row["pk"]: row["message"] for row in rows if row["state"] in LIVE}
    wanted = {row["pk"]: _message(row, shortages) for row in rows if row["state"] in LIVE}
    stale = [pk for pk, message in wanted.items() if said[pk] != message]
    if not stale:
        return
    live = Deployment.objects.filter(pk__in=stale, state__in=LIVE).only("pk", "state", "message")
    states = {row["pk"]: row["state"] for row in rows}
    free = [
        row
        for row in live.select_for_update(skip_locked=True, of=("self",))
        if row.state == states[row.pk]
    ]
    for row in free:
        row.message = wanted[row.pk]
    Deployment.objects.bulk_update(free, ["message"], batch_size=_BATCH)


def _message(row: dict[str, Any], shortages: dict[int, str]) -> str:
    found = shortages.get(row["pk"], "")
    if found or row["state"] == DeploymentState.SERVING:
        return found
    return ASLEEP if row["replicas_wanted"] == 0 else WAITS
