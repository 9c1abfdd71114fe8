"""State machine of a deployment: the transition table, the only function that applies it, and the
record of serving periods.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from django.db import transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.audit.services import Subject, audit_record
from governance.policy.decisions import Authorization
from governance.principals import Principal, background
from governance.rowsecurity import lifted
from governance.state_machine import StateMachine
from workers.deployments.models import Deployment, DeploymentState, ServingPeriod
from workers.dispatch import wake_engines, wake_gateways

ALLOWED_TRANSITIONS: dict[DeploymentState, frozenset[DeploymentState]] = {
    DeploymentState.PENDING: frozenset(
        {DeploymentState.SERVING, DeploymentState.REFUSED, DeploymentState.STOPPED}
    ),
    # Back to pending: the last replica ended, and another worker may load the deployment.
    DeploymentState.SERVING: frozenset(
        {DeploymentState.PENDING, DeploymentState.REFUSED, DeploymentState.STOPPED}
    ),
    DeploymentState.REFUSED: frozenset({DeploymentState.STOPPED}),
    DeploymentState.STOPPED: frozenset(),
}
DEPLOYMENT_STATES = StateMachine(
    model=Deployment,
    noun="deployment",
    table=ALLOWED_TRANSITIONS,
    hint="deploy the release again",
    related=("department", "release__version"),
    label=str,
)
deployment_lock = DEPLOYMENT_STATES.locked
LIVE = frozenset({DeploymentState.PENDING, DeploymentState.SERVING})
_ENDED = frozenset({DeploymentState.REFUSED, DeploymentState.STOPPED})
_VERBS: dict[DeploymentState, str] = {
    DeploymentState.PENDING: "await",
    DeploymentState.SERVING: "serve",
    DeploymentState.REFUSED: "load",
    DeploymentState.STOPPED: "stop",
}


def deployment_subject(deployment: Deployment) -> Subject:
    """Return the deployment as a subject of audit events."""
    return Subject(type="deployment", id=str(deployment.pk), name=deployment.name)


@transaction.atomic
def deployment_move(
    *,
    deployment_id: int,
    to: DeploymentState,
    actor: Principal,
    message: str = "",
    outcome: str = "allowed",
    decision: Authorization | None = None,
) -> Deployment:
    """Lock the deployment, re-check its state, set `to`, audit, and record its serving period; wake
    gateways after the commit, and at its end the workers that have it.

    Raises:
        NotFound: the deployment does not exist.
        WrongState: the deployment cannot move from its state to `to`.
    """
    deployment = deployment_lock(deployment_id)
    deployment.message = message[:1000]
    if to is DeploymentState.STOPPED:
        deployment.stopped_at = timezone.now()
    DEPLOYMENT_STATES.save_state(deployment, to, ["message", "stopped_at"])
    version = deployment.release.version
    with background(f"deployment-{deployment.pk}", actor):
        event = audit_record(
            actor=actor,
            action=f"deployment:{_VERBS[to]}",
            subject=deployment_subject(deployment),
            outcome=outcome,
            reason=message,
            department=deployment.department.slug,
            data={"release": deployment.release_id, "digest": version.digest},
            decision=decision,
        )
    period_keep(deployment=deployment, event=event)
    # The worker that made it serve, or that ended, needs no notice, and no other one does.
    wake = partial(wake_engines, _holders(deployment)) if to in _ENDED else wake_gateways
    transaction.on_commit(wake)
    return deployment


def _holders(deployment: Deployment) -> set[str]:
    """Return the workers that have a copy, or must load one. Waking all would make hundreds of
    workers ask in vain."""
    return {
        *deployment.placements.values_list("worker", flat=True),
        *deployment.replicas.values_list("worker", flat=True),
    }


@lifted()
def period_keep(*, deployment: Deployment, event: AuditEvent) -> None:
    """Open a serving period if a locked deployment began to serve; otherwise close the open one.

    The time is that of the transition's audit event. Clocks of machines may differ, so a period
    never ends before it began, nor begins before the previous one ended. Row security is lifted,
    because actors may not write periods themselves.
    """
    last = ServingPeriod.objects.filter(deployment=deployment).order_by("-id").first()
    is_open = last is not None and last.serving_until is None
    if deployment.state == DeploymentState.SERVING:
        # An open period continues: the state was changed without a transition, so it has no end.
        if not is_open:
            _begin(deployment, event, None if last is None else last.serving_until)
    elif last is not None and is_open:
        last.serving_until = max(event.occurred_at, last.serving_from)
        last.ended_as = deployment.state
        last.ended_event = event
        last.save(update_fields=["serving_until", "ended_as", "ended_event"])


def _begin(deployment: Deployment, event: AuditEvent, previous: datetime | None) -> None:
    ServingPeriod.objects.create(
        deployment=deployment,
        # `replica_report` has compared: no other bytes make a deployment serve.
        digest=deployment.release.version.digest,
        serving_from=max(event.occurred_at, previous or event.occurred_at),
        began_event=event,
    )
