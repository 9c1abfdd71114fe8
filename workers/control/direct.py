"""The control plane of a worker with database and store: the services themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from django.db import close_old_connections, connections
from django.db.models import Exists, OuterRef, Q

from governance.errors import WrongState
from registry.manifests import Manifest
from registry.releases.serving import serving_verdicts
from registry.storage import store
from workers.control.protocol import (
    Assignment,
    LoadPlan,
    ReferenceRequest,
    ReplicaReport,
    Software,
)
from workers.deployments import equivalence, services, worker_keys
from workers.deployments.equivalence import worker_environments
from workers.deployments.models import Deployment, DeploymentState, Replica, ReplicaState
from workers.deployments.plans import load_plan
from workers.deployments.selectors import live_deployments
from workers.deployments.services import ENGINE_WORKER
from workers.offers.models import WorkerRole
from workers.offers.services import worker_tasks_report
from workers.offers.values import Offers
from workers.placement.capacity import Capacity
from workers.placement.models import Placement


class DirectControl:
    """Implements `EngineControl`."""

    def desired(
        self, *, worker: str, engines: Sequence[str], held: Collection[int] = ()
    ) -> list[Assignment]:
        return assignments(worker=worker, engines=engines, held=held)

    def current_plan(self, deployment_id: int) -> LoadPlan:
        return current_plan(deployment_id)

    def copy_version(self, deployment_id: int, manifest: Manifest, target: Path) -> None:
        store.copy_version(manifest, target)

    def replica_report(self, *, worker: str, report: ReplicaReport) -> str:
        replica = services.replica_report(worker=worker, **asdict(report))
        return replica.state

    def replicas_heartbeat(self, *, worker: str, engines: Sequence[str]) -> None:
        services.replicas_heartbeat(worker=worker, engines=engines)

    def replicas_stop(self, *, worker: str) -> None:
        services.replicas_stop(worker=worker)

    def references(self, *, worker: str, deployment_id: int) -> list[ReferenceRequest]:
        return equivalence.references_due(worker=worker, deployment_id=deployment_id)

    def reference_file(self, deployment_id: int, sha256: str) -> BytesIO:
        return equivalence.reference_file(deployment_id=deployment_id, sha256=sha256)

    def references_report(
        self, *, worker: str, deployment_id: int, answers: Sequence[Mapping[str, Any]]
    ) -> None:
        equivalence.references_report(
            worker=worker, deployment_id=deployment_id, answers=answers, actor=ENGINE_WORKER
        )

    def worker_key_register(
        self,
        *,
        worker: str,
        public_key: str,
        engines: Sequence[str],
        capacity: Capacity,
        software: Software,
    ) -> None:
        worker_keys.worker_key_register(
            worker=worker,
            public_key=public_key,
            engines=engines,
            capacity=capacity,
            software=software,
        )

    def tasks_report(self, *, worker: str, offers: Offers) -> None:
        worker_tasks_report(worker=worker, role=WorkerRole.ENGINE, offers=offers)

    def drop_broken(self) -> None:
        close_old_connections()

    def close(self) -> None:
        connections.close_all()


def assignments(
    *, worker: str, engines: Sequence[str], held: Collection[int] = ()
) -> list[Assignment]:
    """Return what `worker` is to hold, to report or to let go of, in a fixed number of queries.

    That is what the controller assigned to it, and what it holds and may go on serving for now.
    """
    mine = Placement.objects.filter(deployment=OuterRef("pk"), worker=worker)
    rows = live_deployments().annotate(assigned=Exists(mine))
    deployments = list(rows.filter(Q(assigned=True) | Q(pk__in=held)))
    verdicts = serving_verdicts(
        [deployment.release for deployment in deployments],
        environments=worker_environments(worker) if deployments else {},
    )
    recorded = set(
        Replica.objects.filter(
            worker=worker, state=ReplicaState.READY, deployment__state=DeploymentState.SERVING
        ).values_list("deployment_id", flat=True)
    )
    found = []
    for deployment in deployments:
        verdict = verdicts[deployment.release_id]
        if verdict.final:
            continue
        assigned: bool = deployment.assigned
        if verdict.loadable and deployment.release.engine not in engines:
            continue
        if not verdict.loadable and not assigned:
            continue
        found.append(
            Assignment(
                deployment_id=deployment.pk,
                name=deployment.name,
                digest=deployment.release.version.digest,
                lease_s=_lease_s(deployment),
                recorded=deployment.pk in recorded,
                refusal="" if verdict.loadable else str(verdict.refusal),
                leaving=not assigned,
            )
        )
    return found


def current_plan(deployment_id: int) -> LoadPlan:
    """Return the plan of a deployment as its rows are now. Raises as `load_plan`; WrongState, too,
    when it is not live any more."""
    current = live_deployments().filter(pk=deployment_id).first()
    if current is None:
        raise WrongState(f"Deployment {deployment_id} is not live any more.")
    return load_plan(current)


def _lease_s(deployment: Deployment) -> float:
    left: float | None = deployment.lease_s  # type: ignore[attr-defined]  # annotated
    return left or 0.0
