"""Limit a node's engine workers to the deployments that the controller placed on them."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from io import BytesIO
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.utils import timezone

from governance.errors import InvalidInput, NotFound, QuotaExceeded, WrongState
from registry.manifests import ManifestFile
from workers.control.direct import assignments, current_plan
from workers.control.messages import WORKER_NAME_MAX
from workers.control.protocol import Assignment, LoadPlan, ReferenceRequest, Software
from workers.deployments.equivalence import reference_file, references_due, references_report
from workers.deployments.models import Replica, ReplicaState, WorkerKey
from workers.deployments.selectors import live_deployments
from workers.deployments.services import replicas_stop
from workers.deployments.worker_keys import worker_key_register
from workers.nodes.models import Node
from workers.nodes.states import node_principal, node_working
from workers.offers.models import WorkerRole, WorkerTasks
from workers.offers.services import worker_tasks_report
from workers.offers.values import Offers
from workers.placement.capacity import Capacity
from workers.placement.models import Placement

# Most workers that a node may have registered at a time.
WORKERS_MAX = 64
# Most keys that a node may register in a minute: each writes an audit event.
REGISTRATIONS_MAX = 2 * WORKERS_MAX
# Most stops in a minute: a worker reports one at its start and at its end, which moves its
# deployments.
STOPS_MAX = 2 * REGISTRATIONS_MAX
_MINUTE_S = 60
# The controller checks at this interval, too, whether deployments may still serve.
_PLAN_S = 2.0
# One node may use the media store's size divided by this.
MEDIA_SHARE = 4
_WORKER = re.compile(rf"[A-Za-z0-9@._-]{{1,{WORKER_NAME_MAX}}}")


def worker_of(node: Node, name: str) -> str:
    """Return the full name of a node's worker. The node's name comes from its session, so a node
    can only name its own workers.

    Raises:
        InvalidInput: the name is not valid.
    """
    if not _WORKER.fullmatch(name):
        raise InvalidInput(
            "The worker's name is not valid.",
            fields={"worker": [f"Use up to {WORKER_NAME_MAX} letters, digits and @ . _ -"]},
        )
    return f"{node.prefix}{name}"


def node_worker_register(
    *,
    node: Node,
    worker: str,
    public_key: str,
    engines: Sequence[str],
    capacity: Capacity,
    software: Software | None = None,
) -> None:
    """Register the key of a worker; its name comes from `worker_of`.

    Raises:
        NotAuthenticated: the node was revoked.
        WrongState: the node has the maximum number of other workers.
        QuotaExceeded: the node registered too many keys in the last minute.
    """
    if _counted(f"node-keys:{node.pk}", 1, _MINUTE_S) > REGISTRATIONS_MAX:
        raise QuotaExceeded(
            f"Node {node.name} has registered {REGISTRATIONS_MAX} keys of workers in a minute.",
            hint="A worker registers one key at its start; check why workers start again so often.",
            retry_after=10,
        )
    with node_working(node):
        others = WorkerKey.objects.filter(worker__startswith=node.prefix).exclude(worker=worker)
        if others.count() >= WORKERS_MAX:
            raise WrongState(
                f"Node {node.name} has {WORKERS_MAX} workers; {worker} was not registered.",
                hint="Give workers the same names at each start. Silent ones are forgotten after "
                "an hour.",
            )
        worker_key_register(
            worker=worker,
            public_key=public_key,
            engines=engines,
            capacity=capacity,
            software=software,
            actor=node_principal(node.name),
        )


def node_worker_tasks(*, node: Node, worker: str, role: WorkerRole, offers: Offers) -> None:
    """Record the tasks of a worker; its name comes from `worker_of`.

    Raises:
        NotAuthenticated: the node was revoked.
        WrongState: the node has the maximum number of other workers.
    """
    with node_working(node):
        rows = WorkerTasks.objects.filter(worker__startswith=node.prefix).exclude(worker=worker)
        if rows.count() >= 2 * WORKERS_MAX:
            raise WrongState(
                f"Node {node.name} has {2 * WORKERS_MAX} workers; the tasks of {worker} were not "
                "recorded.",
                hint="Give workers the same names at each start. Silent ones are forgotten after "
                "an hour.",
            )
        worker_tasks_report(worker=worker, role=role, offers=offers)


def node_worker_stop(*, node: Node, worker: str) -> None:
    """Record that a worker has no replicas; its name comes from `worker_of`.

    Raises:
        NotAuthenticated: the node was revoked.
        QuotaExceeded: the node reported too many stops in the last minute.
    """
    if _counted(f"node-stops:{node.pk}", 1, _MINUTE_S) > STOPS_MAX:
        raise QuotaExceeded(
            f"Node {node.name} has reported {STOPS_MAX} stops of workers in a minute.",
            hint="Check why its workers start again so often.",
            retry_after=10,
        )
    with node_working(node):
        replicas_stop(worker=worker, actor=node_principal(node.name))


def node_assignments(
    *, node: Node, worker: str, engines: Sequence[str], loaded: Collection[int] = ()
) -> list[Assignment]:
    """Return the deployments that a worker of the node must load, report or unload. Of `loaded`,
    only deployments that it has reported count. Raises the errors of `worker_of`.
    """
    name = worker_of(node, worker)
    # Include copies that it reported as stopped, which may still answer their last requests.
    reported = Replica.objects.filter(worker=name, deployment_id__in=loaded).values_list(
        "deployment_id", flat=True
    )
    return assignments(worker=name, engines=engines, loaded=list(reported) if loaded else ())


def node_require(*, node: Node, worker: str, deployment_id: int, state: ReplicaState) -> None:
    """Check that a worker of the node may report a copy of the deployment in this state.

    Raises:
        NotFound: the deployment is not placed on the worker. A stop may be reported for any copy
            that it had.
    """
    rows = Placement.objects if state is not ReplicaState.STOPPED else Replica.objects
    if not rows.filter(deployment_id=deployment_id, worker=worker).exists():
        raise _not_assigned(node, deployment_id)


def node_plan(*, node: Node, deployment_id: int) -> LoadPlan:
    """Return the plan of a deployment that is placed on a worker of the node.

    Raises:
        NotFound: the deployment is not placed on the node, or does not exist.
        WrongState, ManifestMismatch: see `load_plan`.
    """
    _require_placed(node, deployment_id)
    return current_plan(deployment_id)


def node_file(*, node: Node, deployment_id: int, sha256: str) -> ManifestFile:
    """Return the manifest entry of a file of a placed deployment.

    Placement and state are current; the check that the release may serve is at most `_PLAN_S` old,
    as in the controller.

    Raises:
        NotFound: the deployment has no such file, is not placed on the node, or may not serve.
    """
    _require_placed(node, deployment_id)
    if not live_deployments().filter(pk=deployment_id).exists():
        raise NotFound(f"Deployment {deployment_id} is not live any more.")
    try:
        files = _planned_files(deployment_id, int(time.monotonic() / _PLAN_S))
    except WrongState as error:
        raise NotFound(error.message) from error
    if sha256 not in files:
        raise NotFound(f"Deployment {deployment_id} has no file {sha256[:12]}….")
    return files[sha256]


def node_references(*, node: Node, worker: str, deployment_id: int) -> list[ReferenceRequest]:
    """Return the requests that a worker of the node must answer before a deployment that is placed
    on it serves there. The worker's name comes from `worker_of`.

    Raises:
        NotFound: the deployment is not placed on the worker, or does not exist.
    """
    _require_on(node, worker, deployment_id)
    return references_due(worker=worker, deployment_id=deployment_id)


def node_reference_file(*, node: Node, deployment_id: int, sha256: str) -> BytesIO:
    """Return a file of a reference request. Raises the errors of `reference_file`."""
    _require_placed(node, deployment_id)
    return reference_file(deployment_id=deployment_id, sha256=sha256)


def node_references_report(
    *, node: Node, worker: str, deployment_id: int, answers: Sequence[Mapping[str, Any]]
) -> None:
    """Compare the answers of a worker of the node. Raises the errors of `references_report`."""
    with node_working(node):
        _require_on(node, worker, deployment_id)
        references_report(
            worker=worker,
            deployment_id=deployment_id,
            answers=answers,
            actor=node_principal(node.name),
        )


def _require_on(node: Node, worker: str, deployment_id: int) -> None:
    if not Placement.objects.filter(deployment_id=deployment_id, worker=worker).exists():
        raise _not_assigned(node, deployment_id)


@lru_cache(maxsize=32)
def _planned_files(deployment_id: int, period: int) -> dict[str, ManifestFile]:
    """Return the files of a deployment's plan by SHA-256, cached for one `period`.

    A node requests each file of a model, and a plan costs a dozen queries.
    """
    plan = current_plan(deployment_id)
    parts = [each for each in (plan.weights, plan.adapter, plan.prompt) if each is not None]
    return {file.sha256: file for part in parts for file in part.manifest.files}


def node_media_require(*, node: Node, deployment_id: int) -> None:
    """Check that a worker of the node may be answering requests to the deployment: it is placed
    there, or was so recently that its last requests may still run.

    Raises:
        NotFound: the deployment is not placed there.
    """
    own = {"deployment_id": deployment_id, "worker__startswith": node.prefix}
    lately = timezone.now() - timedelta(seconds=settings.GATEWAY_REQUEST_TIMEOUT_S)
    if not (
        Placement.objects.filter(**own).exists()
        or Replica.objects.filter(**own, heartbeat_at__gte=lately).exists()
    ):
        raise _not_assigned(node, deployment_id)


def node_media_take_room(*, node: Node, size: int) -> None:
    """Count a media file that the node sends in this period of `ASSAY_MEDIA_STORE_S`.

    Raises:
        QuotaExceeded: its files would take more than a quarter of the media store.
    """
    limit: int = settings.MEDIA_STORE_BYTES // MEDIA_SHARE
    if _counted(f"node-media:{node.pk}", size, settings.MEDIA_STORE_S) > limit:
        raise QuotaExceeded(
            f"Node {node.name} has sent {limit:,} bytes of media in {settings.MEDIA_STORE_S} s.",
            hint="ASSAY_MEDIA_STORE_BYTES sets the limit, of which one node has a quarter.",
            retry_after=10,
        )


def _require_placed(node: Node, deployment_id: int) -> None:
    placed = Placement.objects.filter(deployment_id=deployment_id, worker__startswith=node.prefix)
    if not placed.exists():
        raise _not_assigned(node, deployment_id)


def _counted(key: str, amount: int, period_s: int) -> int:
    """Add to a counter that expires `period_s` after it was created; return the sum."""
    cache.add(key, 0, timeout=period_s)
    try:
        return cache.incr(key, amount)
    except ValueError:
        # The counter expired between the two calls.
        return amount


def _not_assigned(node: Node, deployment_id: int) -> NotFound:
    return NotFound(f"Deployment {deployment_id} is not assigned to node {node.name}.")
