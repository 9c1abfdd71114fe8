"""Credentials of departments, for the workers that call their providers."""

from __future__ import annotations

from governance.credentials.services import credential_use
from governance.errors import NotFound
from registry.intake.probes import intake_probe_of
from workers.control.protocol import SealedCredential
from workers.deployments.selectors import live_deployments
from workers.deployments.services import ENGINE_WORKER
from workers.jobs.hosted import evaluation_department


def credential_for_worker(
    *,
    worker: str,
    deployment_id: int,
    name: str,
    host: str,
    intake_id: int = 0,
    job_id: str = "",
) -> SealedCredential:
    """Return the sealed credential of the deployment's department, and record its use.

    With `intake_id`, it is that of the department that takes in a hosted model, if `worker` has the
    order to call its provider. With `job_id`, it is that of the department of an evaluation that
    `worker` runs.

    Raises:
        NotFound: the deployment is not live, or the order or the evaluation is not this worker's.
        Unavailable: the department has no active credential of this name that may be sent to
            `host` (code `credential_unavailable`).
    """
    if intake_id:
        order = intake_probe_of(worker=worker, intake_id=intake_id)
        if order is None:
            raise NotFound(f"Worker {worker} does not call the provider of intake {intake_id}.")
        department, user = order.intake.model.department, f"intake-{intake_id}"
    elif job_id:
        department, user = evaluation_department(worker=worker, job_id=job_id), f"job-{job_id}"
    else:
        deployment = live_deployments().filter(pk=deployment_id).first()
        if deployment is None:
            raise NotFound(f"Deployment {deployment_id} is not live any more.")
        department, user = deployment.department, deployment.name
    credential = credential_use(
        actor=ENGINE_WORKER,
        department=department,
        name=name,
        host=host,
        deployment=user,
        worker=worker,
    )
    return SealedCredential(
        id=credential.pk,
        department=department.slug,
        name=credential.name,
        kind=credential.kind,
        hosts=tuple(credential.hosts),
        version=credential.version,
        sealed=bytes(credential.sealed),
    )
