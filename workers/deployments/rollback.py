"""Roll a deployment back to an earlier release that is still approved and unexpired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Max, QuerySet

from governance.audit.services import audit_record
from governance.errors import WrongState
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from registry.releases.models import Release
from registry.releases.selectors import release_get, releases_visible_to
from registry.releases.serving import startable_refusals
from registry.validation import checked_text
from workers.deployments.models import Deployment, ServingPeriod
from workers.deployments.resources import deployment_context, new_deployment_resource
from workers.deployments.selectors import deployment_get
from workers.deployments.services import deployment_create
from workers.deployments.states import deployment_subject

# Number of earlier releases that are offered, latest first.
CHOICES = 10
REASON_MAX = 500
_HEAVY = ("version__manifest", "version__card")


@dataclass(frozen=True, slots=True)
class RollbackChoice:
    """A release that served under the name before; `obstacle` says why it may not serve again,
    empty if it may.
    """

    release: Release
    served_from: datetime
    obstacle: str


def rollback_choices(*, actor: Principal, deployment: Deployment) -> list[RollbackChoice]:
    """Return at most ten releases that served under the deployment's name before, latest first;
    empty for a deployment that was replaced.
    """
    if deployment.target_of_id is not None or _later(deployment) is not None:
        return []
    served = dict(
        _served(deployment)
        .exclude(deployment__release=deployment.release_id)
        .order_by()
        .values_list("deployment__release")
        .annotate(last=Max("serving_from"))
        .order_by("-last", "-deployment__release")[:CHOICES]
    )
    if not served:
        return []
    releases = list(releases_visible_to(actor).filter(pk__in=served).defer(*_HEAVY))
    refusals = startable_refusals(releases)
    choices = [
        RollbackChoice(each, served[each.pk], _sentence(refusals[each.pk])) for each in releases
    ]
    return sorted(choices, key=lambda choice: choice.served_from, reverse=True)


def _served(deployment: Deployment) -> QuerySet[ServingPeriod]:
    """Return the periods in which releases served under the name of the deployment."""
    return ServingPeriod.objects.filter(
        deployment__name=deployment.name, deployment__department=deployment.department_id
    )


def _sentence(refusal: WrongState | None) -> str:
    return "" if refusal is None else refusal.message


@transaction.atomic
def deployment_rollback(
    *, actor: Principal, deployment_id: int, release_id: int, reason: str
) -> Deployment:
    """Replace a deployment by a release that served under its name before.

    Raises:
        InvalidInput: the reason is empty or longer than 500 characters.
        NotFound: deployment or release do not exist, or the actor may not see them.
        NotPermitted: the policy denies it.
        WrongState: the release never served under the name or may not serve now (says why), or
            another deployment of the name came later.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    deployment = deployment_get(actor=actor, deployment_id=deployment_id)
    release = release_get(actor=actor, id=release_id)
    decision = authorize(
        actor=actor,
        action=Action.DEPLOYMENT_CREATE,
        resource=new_deployment_resource(release),
        context=deployment_context(release),
    )
    _check_latest(deployment)
    _check_served(deployment, release)
    again = deployment_create(actor=actor, release_id=release.pk)
    audit_record(
        actor=actor,
        action="deployment:rollback",
        subject=deployment_subject(again),
        reason=reason,
        department=again.department.slug,
        data={
            "from": {"deployment": deployment.pk, "release": deployment.release_id},
            "to": {"deployment": again.pk, "release": release.pk},
            "digest": release.version.digest,
        },
        decision=decision,
    )
    return again


def _later(deployment: Deployment) -> Deployment | None:
    """Return the newest later deployment of the same name that is no target, or None."""
    later = Deployment.objects.filter(
        name=deployment.name,
        department=deployment.department_id,
        target_of=None,
        pk__gt=deployment.pk,
    )
    return later.order_by("-pk").first()


def _check_latest(deployment: Deployment) -> None:
    if deployment.target_of_id is not None:
        raise WrongState(
            f"Deployment {deployment.pk} is a target of deployment {deployment.target_of_id}; "
            "nothing was rolled back.",
            hint="Change the targets, or roll the primary back.",
        )
    if (newest := _later(deployment)) is not None:
        raise WrongState(
            f"{deployment.name} was deployed again since, as deployment {newest.pk}; nothing was "
            "rolled back.",
            hint=f"Roll back deployment {newest.pk}, if it is the one to replace.",
        )


def _check_served(deployment: Deployment, release: Release) -> None:
    if release.pk == deployment.release_id:
        raise WrongState(
            f"Deployment {deployment.pk} is of release {release.pk} itself; nothing was rolled "
            "back.",
            hint="Deploy the release again, if it stopped.",
        )
    if not _served(deployment).filter(deployment__release=release.pk).exists():
        raise WrongState(
            f"Release {release.pk} never served as {deployment.name}; nothing was rolled back.",
            code="never_served",
            hint="Deploy it as any approved release.",
        )
