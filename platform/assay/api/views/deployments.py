"""Deployments of approved releases."""

from __future__ import annotations

from django.db.models import QuerySet

from assay.api.representations.health import DeploymentHealthAnswer
from assay.api.representations.workers import (
    DeploymentAnswer,
    RollbackChoiceAnswer,
    TargetAnswer,
)
from assay.api.routes import Routes
from governance.principals import Principal
from workers.deployments.health import Health, deployment_health
from workers.deployments.models import Deployment
from workers.deployments.rollback import RollbackChoice, deployment_rollback, rollback_choices
from workers.deployments.schemas import (
    DeploymentFilter,
    DeploymentRollback,
    DeploymentStop,
    HealthFilter,
    NewDeployment,
    Replicas,
)
from workers.deployments.selectors import deployment_get, deployments_visible_to
from workers.deployments.services import deployment_create, deployment_stop
from workers.placement.services import deployment_place
from workers.routing.schemas import TargetsChange, TargetsSwitch
from workers.routing.selectors import TargetView, targets_view
from workers.routing.services import targets_change, targets_switch

routes = Routes("Deployments", DeploymentAnswer)


@routes.list("deployments", "List deployments")
def list_deployments(actor: Principal, query: DeploymentFilter) -> QuerySet[Deployment]:
    return query.applied(deployments_visible_to(actor).prefetch_related("placements"))


@routes.create("deployments", "Deploy an approved release")
def create(actor: Principal, body: NewDeployment) -> Deployment:
    replicas = body.replicas.settings() if body.replicas else None
    return deployment_create(actor=actor, release_id=body.release, replicas=replicas)


@routes.get("deployments/<id:deployment_id>", "One deployment and its replicas")
def show(actor: Principal, deployment_id: int) -> Deployment:
    return deployment_get(actor=actor, deployment_id=deployment_id)


@routes.get(
    "deployments/<id:deployment_id>/health",
    "Get the health of a deployment",
    answer=DeploymentHealthAnswer,
)
def health(actor: Principal, deployment_id: int, query: HealthFilter) -> Health:
    """Latency, errors and cost over time, of the requests whose usage the caller may view."""
    return deployment_health(actor=actor, deployment_id=deployment_id, span=query.span)


@routes.post("deployments/<id:deployment_id>/stop", "Stop a deployment", repeatable=True)
def stop(actor: Principal, deployment_id: int, body: DeploymentStop) -> Deployment:
    return deployment_stop(actor=actor, deployment_id=deployment_id, reason=body.reason)


@routes.post(
    "deployments/<id:deployment_id>/replicas",
    "Change the replicas of a deployment",
    repeatable=True,
)
def place(actor: Principal, deployment_id: int, body: Replicas) -> Deployment:
    return deployment_place(actor=actor, deployment_id=deployment_id, settings=body.settings())


@routes.list(
    "deployments/<id:deployment_id>/rollback",
    "List releases that a deployment can be rolled back to",
    answer=RollbackChoiceAnswer,
    order=(),
)
def choices(actor: Principal, deployment_id: int) -> list[RollbackChoice]:
    deployment = deployment_get(actor=actor, deployment_id=deployment_id)
    return rollback_choices(actor=actor, deployment=deployment)


@routes.create(
    "deployments/<id:deployment_id>/rollback", "Roll back to a release that served before"
)
def roll_back(actor: Principal, deployment_id: int, body: DeploymentRollback) -> Deployment:
    return deployment_rollback(
        actor=actor, deployment_id=deployment_id, release_id=body.release, reason=body.reason
    )


@routes.list(
    "deployments/<id:deployment_id>/targets",
    "List the primary and the targets of a deployment",
    answer=TargetAnswer,
    order=(),
)
def targets(actor: Principal, deployment_id: int) -> list[TargetView]:
    """With the requests of the last 24 hours, of the usage that the caller may view."""
    return targets_view(actor, deployment_get(actor=actor, deployment_id=deployment_id))


@routes.put(
    "deployments/<id:deployment_id>/targets", "Change the targets of a deployment", judged=True
)
def route(actor: Principal, deployment_id: int, body: TargetsChange) -> Deployment:
    """Replaces all targets. Those that are not named stop, and new ones are loaded."""
    primary = targets_change(actor=actor, deployment_id=deployment_id, change=body)
    return deployment_get(actor=actor, deployment_id=primary.pk)


@routes.post("deployments/<id:deployment_id>/switch", "Switch to a target of a deployment")
def switch(actor: Principal, deployment_id: int, body: TargetsSwitch) -> Deployment:
    """The target becomes the primary in one step; the former primary stays loaded."""
    primary = targets_switch(actor=actor, deployment_id=deployment_id, switch=body)
    return deployment_get(actor=actor, deployment_id=primary.pk)
