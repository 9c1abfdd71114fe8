"""Change the targets of a deployment, and let a target take the place of the primary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Attempt, audit_record
from governance.errors import DomainError, InvalidInput, NotFound, NotPermitted, WrongState
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize, authorize_binding
from governance.principals import Principal
from registry.catalog.routes import routes
from registry.releases.models import Release
from registry.releases.selectors import release_get
from registry.releases.serving import release_startable
from registry.releases.voiding import release_deployed
from workers.deployments.models import Deployment, DeploymentState, TargetRole
from workers.deployments.resources import (
    deployment_context,
    deployment_resource,
    new_deployment_resource,
)
from workers.deployments.selectors import deployment_get
from workers.deployments.services import check_not_shadow, deployment_insert
from workers.deployments.states import LIVE, deployment_move, deployment_subject
from workers.deployments.targets import live_targets, mixes_vectors, promote
from workers.dispatch import wake_gateways, wake_placement
from workers.placement.settings import ReplicaSettings
from workers.routing.schemas import Target, TargetsChange, TargetsSwitch


@transaction.atomic
def targets_change(*, actor: Principal, deployment_id: int, change: TargetsChange) -> Deployment:
    """Replace the targets of a live deployment by those of `change`, and return the deployment.

    Targets whose release stays keep their replicas. New ones, which must be startable, begin to
    load, and others stop.

    Raises:
        NotFound: the deployment or a release does not exist, or the actor may not see it.
        NotPermitted: the policy denies it, or the person gave no second factor recently.
        WrongState: the deployment is not live, or is itself a target; a release may not be its
            target; or the targets have changed since `revision`.
        InvalidInput: a condition names an unknown endpoint.
    """
    deployment, decision = _deployment_authorized(actor, deployment_id, "changing targets")
    releases = _releases_permitted(actor, change)
    attempt = _attempt(actor, deployment, decision)
    try:
        primary = _locked(deployment.pk, change.revision)
        live = {each.release_id: each for each in live_targets(primary.pk)}
        _check_conditions(change)
        for target in change.targets:
            release, _ = releases[target.release]
            if release.pk not in live:
                release_startable(release)
            _check_release(primary, release, target)
    except DomainError as error:
        error.attempt = error.attempt or attempt
        raise
    before = [_described(each) for each in live.values()]
    for release_id, row in live.items():
        if release_id not in releases:
            deployment_move(
                deployment_id=row.pk,
                to=DeploymentState.STOPPED,
                actor=actor,
                message=f"Removed from the targets of deployment {primary.pk}.",
                decision=decision,
            )
    for position, target in enumerate(change.targets, 1):
        columns = _columns(target, position)
        if target.release in live:
            _update(live[target.release], columns)
        else:
            _target_insert(actor, primary, *releases[target.release], target, columns)
    primary.targets_revision += 1
    primary.save(update_fields=["targets_revision"])
    audit_record(
        actor=actor,
        action=Action.DEPLOYMENT_ROUTE,
        subject=deployment_subject(primary),
        reason=change.reason,
        department=primary.department.slug,
        data={
            "revision": primary.targets_revision,
            "before": before,
            "after": [_described(each) for each in live_targets(primary.pk)],
        },
        decision=decision,
    )
    transaction.on_commit(wake_placement)
    transaction.on_commit(wake_gateways)
    return primary


@transaction.atomic
def targets_switch(*, actor: Principal, deployment_id: int, switch: TargetsSwitch) -> Deployment:
    """Let a loaded target be the primary, in one step, and return it. The former primary stays
    loaded as a target with weight 0, so that a second switch goes back at once.

    Raises:
        NotFound: the deployment does not exist, or the actor may not see it.
        NotPermitted: the policy denies it, or the person gave no second factor recently.
        WrongState: the deployment is not live, or is itself a target; the target has no ready
            replica, or its release may not serve; another target answers with vectors that cannot
            be compared; or the targets have changed since `revision`.
    """
    deployment, decision = _deployment_authorized(actor, deployment_id, "switching a deployment")
    attempt = _attempt(actor, deployment, decision)
    row = live_targets(deployment.pk).filter(pk=switch.target).first()
    if row is None:
        raise NotFound(f"Deployment {deployment.pk} has no live target {switch.target}.")
    release = _locked_release(release_get(actor=actor, id=row.release_id).pk)
    try:
        primary = _locked(deployment.pk, switch.revision)
        target = Deployment.objects.select_for_update(of=("self",)).get(pk=row.pk)
        if target.state != DeploymentState.SERVING:
            raise WrongState(
                f"Target {target.pk} of {target.name} is {target.state}; deployment {primary.pk} "
                "stays the primary.",
                hint="Switch once a worker has loaded the target.",
            )
        release_startable(release)
        check_not_shadow(release)
        _check_vectors(primary, target, release)
    except DomainError as error:
        error.attempt = error.attempt or attempt
        raise
    role, position = target.role, target.position
    if role == TargetRole.FALLBACK:
        role = TargetRole.SERVE
    # The name has one live primary at each moment, also within this transaction.
    primary.target_of, primary.role, primary.position = target, role, position
    primary.routed_at, primary.canary_verdict = timezone.now(), {}
    primary.save(update_fields=["target_of", "role", "position", "routed_at", "canary_verdict"])
    promote(target, primary, revision=primary.targets_revision + 1)
    release_deployed(actor=actor, release=release, decision=decision)
    audit_record(
        actor=actor,
        action="deployment:switch",
        subject=deployment_subject(target),
        reason=switch.reason,
        department=target.department.slug,
        data={
            "revision": target.targets_revision,
            "from": {"deployment": primary.pk, "release": primary.release_id},
            "to": {"deployment": target.pk, "release": target.release_id},
            "digest": release.version.digest,
        },
        decision=decision,
    )
    transaction.on_commit(wake_gateways)
    return target


def _check_vectors(primary: Deployment, target: Deployment, release: Release) -> None:
    """Raise WrongState if another target would mix its vectors with those of the new primary."""
    for other in live_targets(primary.pk).exclude(pk=target.pk):
        if mixes_vectors(release, other.release, other.role, other.weight):
            raise WrongState(
                f"Target {other.pk} of {target.name} answers with another model than release "
                f"{release.pk}, and their vectors cannot be compared; deployment {primary.pk} "
                "stays the primary.",
                hint=f"Remove target {other.pk}, and switch again.",
            )


def _deployment_authorized(
    actor: Principal, deployment_id: int, doing: str
) -> tuple[Deployment, Authorization]:
    deployment = deployment_get(actor=actor, deployment_id=deployment_id)
    decision = authorize_binding(
        actor=actor,
        action=Action.DEPLOYMENT_ROUTE,
        resource=deployment_resource(deployment),
        context=deployment_context(deployment.release),
        doing=doing,
    )
    if actor.person_id is None:
        raise NotPermitted(
            f"{actor.name} is not a person; only people can change targets.",
            hint="Sign in, or use a personal access token.",
            attempt=_attempt(actor, deployment, decision),
        )
    return deployment, decision


def _attempt(actor: Principal, deployment: Deployment, decision: Authorization) -> Attempt:
    return Attempt(
        actor=actor,
        action=Action.DEPLOYMENT_ROUTE,
        subject=deployment_subject(deployment),
        department=deployment.department.slug,
        decision=decision,
    )


def _releases_permitted(
    actor: Principal, change: TargetsChange
) -> dict[int, tuple[Release, Authorization]]:
    """Return the locked releases of the targets by ID, and the decisions to deploy them."""
    releases = {}
    for pk in sorted(target.release for target in change.targets):
        release = release_get(actor=actor, id=pk)
        decision = authorize(
            actor=actor,
            action=Action.DEPLOYMENT_CREATE,
            resource=new_deployment_resource(release),
            context=deployment_context(release),
        )
        releases[pk] = (_locked_release(pk), decision)
    return releases


def _locked_release(release_id: int) -> Release:
    rows = Release.objects.select_for_update(of=("self",))
    return rows.select_related("department", "version__model").get(pk=release_id)


def _locked(deployment_id: int, revision: int) -> Deployment:
    """Lock and return a live primary.

    Raises:
        WrongState: it is not live, or is a target, or its targets changed since `revision`.
    """
    rows = Deployment.objects.select_for_update(of=("self",))
    rows = rows.select_related("department", "release__version__model")
    primary: Deployment = rows.get(pk=deployment_id)
    if primary.state not in LIVE:
        raise WrongState(
            f"Deployment {primary.pk} is {primary.state}; its targets were not changed.",
            hint="Deploy the release again.",
        )
    if primary.target_of_id is not None:
        raise WrongState(
            f"Deployment {primary.pk} is a target itself; its targets were not changed.",
            hint=f"Change the targets of deployment {primary.target_of_id}, its primary.",
        )
    if primary.targets_revision != revision:
        raise WrongState(
            f"The targets of {primary.name} have changed since revision {revision}; they are at "
            f"revision {primary.targets_revision}, and were not changed again.",
            code="targets_changed",
            hint="Read the targets again, and repeat your change.",
        )
    return primary


def _check_release(primary: Deployment, release: Release, target: Target) -> None:
    """Raise WrongState unless the release was approved for such a target."""
    fault = ""
    if release.pk == primary.release_id:
        fault = "is the release of the primary"
    elif release.deployment_name != primary.name:
        fault = f"was approved for the name {release.deployment_name}"
    elif release.environment != primary.release.environment:
        fault = f"was approved for {release.environment}, not for {primary.release.environment}"
    elif release.department_id != primary.department_id:
        fault = f"belongs to department {release.department.slug}"
    elif release.version.model.task != primary.release.version.model.task:
        fault = f"is for {release.version.model.task}, not {primary.release.version.model.task}"
    if fault:
        raise _refused(
            primary, release, fault, "Submit a release of this version for this deployment."
        )
    needed = set(target.conditions.departments) or _departments(primary.release)
    if missing := sorted(needed - _departments(release)):
        raise _refused(
            primary,
            release,
            f"does not name department {missing[0]}",
            "Limit the target to departments that its release names, or submit it again.",
        )
    is_limited = bool(release.conditions.get("shadow_only"))
    if target.role != TargetRole.SHADOW:
        check_not_shadow(release)
    elif not is_limited:
        raise _refused(
            primary,
            release,
            "was not approved as a shadow",
            "Have its approvers set the condition shadow_only.",
        )
    if mixes_vectors(primary.release, release, target.role, target.weight):
        raise _refused(
            primary,
            release,
            "is of another model, whose vectors cannot be compared with the primary's",
            "Use a release of the primary's version, or weight 0 to switch in one step.",
        )


def _refused(primary: Deployment, release: Release, fault: str, hint: str) -> WrongState:
    return WrongState(
        f"Release {release.pk} {fault}; it cannot be a target of {primary.name}.",
        code="release_not_a_target",
        hint=hint,
    )


def _departments(release: Release) -> set[str]:
    return set(release.departments.values_list("slug", flat=True))


def _check_conditions(change: TargetsChange) -> None:
    """Raise InvalidInput if a condition names an endpoint that does not exist."""
    for number, target in enumerate(change.targets):
        if unknown := set(target.conditions.endpoints) - routes().keys():
            raise InvalidInput(
                f"{min(unknown)} is not an inference endpoint, so no request meets this condition.",
                fields={
                    f"targets.{number}.conditions.endpoints": ["use paths of the inference API"]
                },
            )


def _columns(target: Target, position: int) -> dict[str, Any]:
    return {
        "role": target.role,
        "weight": target.weight,
        "position": position,
        "routing_conditions": target.conditions.to_json(),
    }


def _target_insert(
    actor: Principal,
    primary: Deployment,
    release: Release,
    decision: Authorization,
    target: Target,
    columns: Mapping[str, Any],
) -> None:
    if target.replicas is None:
        replicas = ReplicaSettings(queue_weights=primary.queue_weights)
    else:
        replicas = target.replicas.settings()
    if target.replicas is not None:
        authorize(
            actor=actor,
            action=Action.DEPLOYMENT_PLACE,
            resource=new_deployment_resource(release),
            context=deployment_context(release),
        )
    # `_deployment_authorized` has refused actors who are not people.
    person_id = actor.person_id or 0
    row = deployment_insert(
        person_id, release, replicas, target_of=primary, routed_at=timezone.now(), **columns
    )
    audit_record(
        actor=actor,
        action=Action.DEPLOYMENT_CREATE,
        subject=deployment_subject(row),
        department=release.department.slug,
        data={
            "release": release.pk,
            "digest": release.version.digest,
            "replicas": replicas.to_json(),
            "target_of": primary.pk,
        },
        decision=decision,
    )


def _update(row: Deployment, columns: Mapping[str, Any]) -> None:
    """Save the columns of a target. A share that changed is compared from now on."""
    if (row.role, row.weight) != (columns["role"], columns["weight"]):
        row.routed_at, row.canary_verdict = timezone.now(), {}
    for name, value in columns.items():
        setattr(row, name, value)
    row.save(update_fields=[*columns, "routed_at", "canary_verdict"])


def _described(target: Deployment) -> dict[str, Any]:
    """Return a target for the audit log."""
    return {
        "deployment": target.pk,
        "release": target.release_id,
        "role": target.role,
        "weight": target.weight,
        "conditions": target.routing_conditions,
    }
