"""Keep or stop the targets of a deployment whose primary ends or is replaced.

If the release of a primary ends, its first ready fallback becomes the primary, because the release
of the fallback permits that. If a person stops a deployment, its targets stop too.
"""

from __future__ import annotations

import logging

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from governance.audit.services import audit_record
from governance.database.locks import wait_at_most
from governance.policy.decisions import Authorization
from governance.principals import Principal, background, service_principal
from governance.rowsecurity import exists_anywhere
from registry.catalog import get_task
from registry.catalog.declaration import Modality
from registry.releases.models import Release
from registry.releases.voiding import release_deployed
from workers.deployments.models import Deployment, DeploymentState, TargetRole
from workers.deployments.states import LIVE, deployment_move, deployment_subject
from workers.dispatch import wake_gateways

logger = logging.getLogger(__name__)
_CONTROLLER = service_principal("controller")
_PATIENCE_MS = 200
PRIMARY_ENDED = "Its primary ended, and no fallback took the place."


def live_targets(primary_id: int) -> QuerySet[Deployment]:
    """Return the live targets of a deployment, in their order."""
    rows = Deployment.objects.filter(target_of=primary_id, state__in=LIVE)
    return rows.select_related("department", "release__version__model").order_by("position", "pk")


def mixes_vectors(primary: Release, release: Release, role: str, weight: int) -> bool:
    """Return true if such a target would answer with vectors of another model than the primary's,
    which cannot be compared with them."""
    answers = role == TargetRole.FALLBACK or (role != TargetRole.SHADOW and weight > 0)
    another = release.version.digest != primary.version.digest
    return answers and another and Modality.VECTOR in get_task(release.version.model.task).outputs


def targets_end(*, actor: Principal, primary: Deployment, decision: Authorization | None) -> None:
    """Stop the targets of a deployment that a person stopped."""
    for target in live_targets(primary.pk):
        deployment_move(
            deployment_id=target.pk,
            to=DeploymentState.STOPPED,
            actor=actor,
            message=f"Its primary, deployment {primary.pk}, was stopped.",
            decision=decision,
        )


def targets_follow(
    *, actor: Principal, before: Deployment, after: Deployment, decision: Authorization | None
) -> None:
    """Make the targets of a replaced primary those of the new one. Targets that were approved for
    another task or environment stop, and those with vectors of another model."""
    release = after.release
    task = release.version.model.task
    for target in live_targets(before.pk):
        other = target.release
        if (other.version.model.task, other.environment) != (task, release.environment):
            fault = f"is for {task} in {release.environment}"
        elif mixes_vectors(release, other, target.role, target.weight):
            fault = "is of another model, whose vectors cannot be compared with this one's"
        else:
            continue
        deployment_move(
            deployment_id=target.pk,
            to=DeploymentState.STOPPED,
            actor=actor,
            message=f"Its new primary, deployment {after.pk}, {fault}.",
            decision=decision,
        )
    _reassign(before, after)
    after.targets_revision = before.targets_revision + 1
    after.save(update_fields=["targets_revision"])


def _reassign(before: Deployment, after: Deployment) -> None:
    """Make `after` the primary of the targets of `before`. Canaries are compared with it from now
    on."""
    targets = live_targets(before.pk).exclude(pk=after.pk)
    targets.update(target_of=after, routed_at=timezone.now(), canary_verdict={})


def targets_settle(primary_id: int | None = None) -> int:
    """Give the targets of each ended primary another primary, or stop them. Return the number of
    ended primaries that had targets. With `primary_id`, settle the targets of this one only."""
    rows = Deployment.objects.filter(state__in=LIVE, target_of__isnull=False)
    rows = rows.exclude(target_of__state__in=LIVE)
    if primary_id is not None:
        rows = rows.filter(target_of=primary_id)
    ended = list(rows.order_by("target_of").values_list("target_of", flat=True).distinct())
    for pk in filter(None, ended):
        try:
            with transaction.atomic():
                wait_at_most(_PATIENCE_MS)
                _succeed(pk)
        except Exception:
            logger.exception("The targets of deployment %s are settled later", pk)
    return len(ended)


def _succeed(primary_id: int) -> None:
    """Make the first ready fallback the primary. Stop all targets if none is ready, or if a person
    deployed another release under the name meanwhile."""
    ended = Deployment.objects.select_for_update(of=("self",)).get(pk=primary_id)
    targets = list(live_targets(primary_id).select_for_update(of=("self",)))
    is_taken = exists_anywhere(Deployment, name=ended.name, state__in=LIVE, target_of=None)
    heir = None if is_taken else next((each for each in targets if _may_succeed(each)), None)
    if heir is None:
        for target in targets:
            deployment_move(
                deployment_id=target.pk,
                to=DeploymentState.STOPPED,
                actor=_CONTROLLER,
                message=PRIMARY_ENDED,
            )
        return
    promote(heir, ended, revision=ended.targets_revision + 1)
    with background(f"deployment-{heir.pk}", _CONTROLLER):
        release_deployed(actor=_CONTROLLER, release=heir.release, decision=None)
        audit_record(
            actor=_CONTROLLER,
            action="deployment:succeed",
            subject=deployment_subject(heir),
            reason=f"Deployment {ended.pk} is {ended.state}: {ended.message}"[:1000],
            department=heir.department.slug,
            data={
                "from": {"deployment": ended.pk, "release": ended.release_id},
                "to": {"deployment": heir.pk, "release": heir.release_id},
            },
        )
    transaction.on_commit(wake_gateways)


def _may_succeed(target: Deployment) -> bool:
    """Return true for a fallback that is loaded and takes every request."""
    return (
        target.role == TargetRole.FALLBACK
        and target.state == DeploymentState.SERVING
        and not target.routing_conditions
    )


def promote(target: Deployment, before: Deployment, *, revision: int) -> None:
    """Make a locked target the primary in place of `before`, with all other targets."""
    _reassign(before, target)
    target.target_of, target.role, target.weight, target.position = None, "", 0, 0
    target.routing_conditions, target.canary_verdict = {}, {}
    target.targets_revision = revision
    target.save()
