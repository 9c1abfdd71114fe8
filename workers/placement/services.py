"""Change the replicas of a deployment, and the workers that may hold them."""

from __future__ import annotations

from django.db import transaction

from governance.audit.services import Attempt, audit_record
from governance.errors import WrongState
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from workers.deployments.models import Deployment
from workers.deployments.resources import deployment_context, deployment_resource
from workers.deployments.selectors import deployment_get
from workers.deployments.states import LIVE, deployment_lock, deployment_subject
from workers.dispatch import wake_gateways, wake_placement
from workers.placement.settings import ReplicaSettings


@transaction.atomic
def deployment_place(
    *, actor: Principal, deployment_id: int, settings: ReplicaSettings
) -> Deployment:
    """Change the replica settings and stream limits of a live deployment; the controller and the
    gateways act on them at once.

    These settings are operational, so changing them needs no approval.

    Raises:
        NotFound: the deployment does not exist, or the actor may not see it.
        NotPermitted: the policy denies it.
        WrongState: the deployment is stopped or refused.
    """
    deployment = deployment_get(actor=actor, deployment_id=deployment_id)
    decision = authorize(
        actor=actor,
        action=Action.DEPLOYMENT_PLACE,
        resource=deployment_resource(deployment),
        context=deployment_context(deployment.release),
    )
    deployment = deployment_lock(deployment.pk)
    subject, department = deployment_subject(deployment), deployment.department.slug
    if deployment.state not in LIVE:
        raise WrongState(
            f"Deployment {deployment.name} is {deployment.state}; it has no replicas.",
            hint="Deploy the release again, with these settings.",
            attempt=Attempt(
                actor=actor,
                action=Action.DEPLOYMENT_PLACE,
                subject=subject,
                department=department,
                decision=decision,
            ),
        )
    before = ReplicaSettings.of(deployment)
    columns = settings.columns(deployment.replicas_wanted)
    for name, value in columns.items():
        setattr(deployment, name, value)
    deployment.save(update_fields=list(columns))
    audit_record(
        actor=actor,
        action=Action.DEPLOYMENT_PLACE,
        subject=subject,
        department=department,
        data={"before": before.to_json(), "after": settings.to_json()},
        decision=decision,
    )
    transaction.on_commit(wake_placement)
    transaction.on_commit(wake_gateways)
    return deployment
