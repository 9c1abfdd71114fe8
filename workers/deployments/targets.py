"""Targets of a deployment whose primary ends or is replaced.

A fallback that is ready takes the place of a primary whose release ended, since its own release
permits that. If a person stops the deployment, its targets stop too.
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
from registry.releases.voiding import release_deployed
from workers.deployments.models import Deployment, DeploymentState, TargetRole
from workers.deployments.states import LIVE, deployment_move, deployment_subject
from workers.dispatch import wake_gateways

logger = logging.getLogger(__name__)
_CONTROLLER = service_principal("controller")
_PATIENCE_MS = 200
PRIMARY_ENDED = "Its primary ended, and it is no fallback that could take its place."


def live_targets(primary_id: int) -> QuerySet[Deployment]:
    """Return the live targets of a deployment, in their order."""
    rows = Deployment.objects.filter(target_of=primary_id, state__in=LIVE)
    return rows.select_related("department", "release__version__model").order_by("position", "pk")


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
    """Let the targets of a replaced primary be those of the new one. They are compared with it from
    now on. Targets for another task stop."""
    task = after.release.version.model.task
    for target in live_targets(before.pk):
        if target.release.version.model.task != task:
            deployment_move(
                deployment_id=target.pk,
                to=DeploymentState.STOPPED,
                actor=actor,
                message=f"Deployment {after.pk}, its new primary, is for {task}.",
                decision=decision,
            )
    live_targets(before.pk).update(target_of=after, routed_at=timezone.now(), canary_verdict={})
    after.targets_revision = before.targets_revision + 1
    after.save(update_fields=["targets_revision"])


def targets_settle(primary_id: int | None = None) -> int:
    """Give targets whose primary ended another one, or stop them; return the number of primaries.
    With `primary_id`, look at the targets of this one."""
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
    """Make the first ready fallback the primary; stop all targets if there is none."""
    ended = Deployment.objects.select_for_update(of=("self",)).get(pk=primary_id)
    targets = list(live_targets(primary_id).select_for_update(of=("self",)))
    heir = next((each for each in targets if _may_succeed(each)), None)
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
    live_targets(before.pk).exclude(pk=target.pk).update(target_of=target)
    target.target_of, target.role, target.weight, target.position = None, "", 0, 0
    target.routing_conditions, target.canary_verdict = {}, {}
    target.targets_revision = revision
    target.save()
