"""Credentials of the department that owns a deployment or an intake, for the worker that calls the
provider."""

from __future__ import annotations

from governance.credentials.models import Credential
from governance.credentials.services import credential_use
from governance.errors import NotFound
from registry.intake.models import Intake
from workers.control.protocol import SealedCredential
from workers.deployments.selectors import live_deployments
from workers.deployments.services import ENGINE_WORKER


def credential_for_deployment(
    *, worker: str, deployment_id: int, name: str, host: str
) -> SealedCredential:
    """Return the sealed credential of the deployment's department, and record its use.

    Raises:
        NotFound: the deployment is not live.
        Unavailable: the department has no active credential of this name that may be sent to
            `host` (code `credential_unavailable`).
    """
    deployment = live_deployments().filter(pk=deployment_id).first()
    if deployment is None:
        raise NotFound(f"Deployment {deployment_id} is not live any more.")
    credential = credential_use(
        actor=ENGINE_WORKER,
        department=deployment.department,
        name=name,
        host=host,
        deployment=deployment.name,
        worker=worker,
    )
    return _sealed(credential)


def credential_for_probe(*, worker: str, intake: Intake, name: str, host: str) -> SealedCredential:
    """Return the sealed credential that the description of an intake names, for the call of its
    provider, and record its use.

    Raises:
        Unavailable: the department of the intake's model has no active credential of this name that
            may be sent to `host` (code `credential_unavailable`).
    """
    return _sealed(
        credential_use(
            actor=ENGINE_WORKER,
            department=intake.model.department,
            name=name,
            host=host,
            deployment=f"intake-{intake.pk}",
            worker=worker,
        )
    )


def _sealed(credential: Credential) -> SealedCredential:
    return SealedCredential(
        id=credential.pk,
        department=credential.department.slug,
        name=credential.name,
        kind=credential.kind,
        hosts=tuple(credential.hosts),
        version=credential.version,
        sealed=bytes(credential.sealed),
    )
