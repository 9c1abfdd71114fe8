"""Direct access to the control plane's services, for workers with database and store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from django.db import close_old_connections, connections

from governance.errors import WrongState
from registry.catalog.hosted import HostedDescription, ProbeResult
from registry.intake.probes import intake_probe_report, intake_probes_due
from registry.manifests import Manifest
from registry.media.store import MediaReference, media_open, media_put
from registry.releases.serving import serving_verdicts
from registry.storage import store
from workers.control.protocol import (
    Assignment,
    LoadPlan,
    ProbeOrder,
    ReplicaReport,
)
from workers.deployments import credentials, equivalence, services, stated_models, worker_keys
from workers.deployments.equivalence import worker_environments
from workers.deployments.models import Deployment, DeploymentState, Replica, ReplicaState
from workers.deployments.plans import load_plan
from workers.deployments.selectors import live_deployments
from workers.deployments.services import ENGINE_WORKER
from workers.offers.models import WorkerRole
from workers.offers.services import worker_tasks_report
from workers.offers.values import Offers
from workers.placement.models import Placement


def assignments(
    *, worker: str, engines: Sequence[str], loaded: Collection[int] = ()
) -> list[Assignment]:
    """Return the deployments that `worker` must load, report or unload, with a fixed number of
    queries: those assigned to it, and loaded ones that it may continue to serve for now.
    """
    # By their IDs, because hundreds of workers ask every few seconds about a few deployments each.
    placed = Placement.objects.filter(worker=worker).values_list("deployment_id", flat=True)
    own = set(placed)
    deployments = list(live_deployments().filter(pk__in=own.union(loaded)))
    verdicts = serving_verdicts(
        [deployment.release for deployment in deployments],
        environments=worker_environments(worker) if deployments else {},
    )
    recorded = set(
        Replica.objects.filter(
            worker=worker, state=ReplicaState.READY, deployment__state=DeploymentState.SERVING
        ).values_list("deployment_id", flat=True)
    )
    listed = []
    for deployment in deployments:
        verdict = verdicts[deployment.release_id]
        if verdict.final:
            continue
        assigned = deployment.pk in own
        if verdict.loadable and deployment.release.engine not in engines:
            continue
        if not verdict.loadable and not assigned:
            continue
        listed.append(
            Assignment(
                deployment_id=deployment.pk,
                name=deployment.name,
                digest=deployment.release.version.digest,
                lease_s=_lease_s(deployment),
                recorded=deployment.pk in recorded,
                refusal="" if verdict.loadable else str(verdict.refusal),
                leaving=not assigned,
                answer_s=deployment.stream_total_s or 0.0,
            )
        )
    return listed


def current_plan(deployment_id: int) -> LoadPlan:
    """Return the current plan of a deployment. Raises the errors of `load_plan`, and WrongState if
    it is no longer live."""
    current = live_deployments().filter(pk=deployment_id).first()
    if current is None:
        raise WrongState(f"Deployment {deployment_id} is not live any more.")
    return load_plan(current)


def _lease_s(deployment: Deployment) -> float:
    left: float | None = deployment.lease_s  # type: ignore[attr-defined]  # annotated
    return left or 0.0


class DirectControl:
    """Implements `EngineControl` with services and store."""

    desired = staticmethod(assignments)
    current_plan = staticmethod(current_plan)
    replicas_stop = staticmethod(services.replicas_stop)
    references = staticmethod(equivalence.references_due)
    worker_key_register = staticmethod(worker_keys.worker_key_register)
    credential = staticmethod(credentials.credential_for_worker)
    model_stated = staticmethod(stated_models.model_stated)
    drop_broken = staticmethod(close_old_connections)
    close = staticmethod(connections.close_all)

    def replicas_heartbeat(self, *, worker: str, engines: Sequence[str]) -> None:
        services.replicas_heartbeat(worker=worker, engines=engines)

    def copy_version(self, deployment_id: int, manifest: Manifest, target: Path) -> None:
        store.copy_version(manifest, target)

    def replica_report(self, *, worker: str, report: ReplicaReport) -> str:
        replica = services.replica_report(worker=worker, **asdict(report))
        return replica.state

    def reference_file(self, deployment_id: int, sha256: str) -> BytesIO:
        return equivalence.reference_file(deployment_id=deployment_id, sha256=sha256)

    def references_report(
        self, *, worker: str, deployment_id: int, answers: Sequence[Mapping[str, Any]]
    ) -> None:
        equivalence.references_report(
            worker=worker, deployment_id=deployment_id, answers=answers, actor=ENGINE_WORKER
        )

    def probes(self, *, worker: str) -> list[ProbeOrder]:
        return [
            ProbeOrder(probe.pk, HostedDescription.read(probe.intake.hosted))
            for probe in intake_probes_due(worker=worker)
        ]

    def probe_report(self, *, worker: str, intake_id: int, result: ProbeResult) -> None:
        intake_probe_report(worker=worker, intake_id=intake_id, result=result)

    def tasks_report(self, *, worker: str, offers: Offers) -> None:
        worker_tasks_report(worker=worker, role=WorkerRole.ENGINE, offers=offers)


class StoredMedia:
    """Implements `MediaFiles` in the folder that gateways and workers of one machine share."""

    def read(self, deployment_id: int, reference: MediaReference) -> BytesIO:
        return media_open(reference)

    def write(self, deployment_id: int, data: bytes, content_type: str) -> MediaReference:
        return media_put(data, content_type=content_type, deployment_id=deployment_id)
