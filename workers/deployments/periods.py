"""From when to when a deployment served, kept as it moves."""

from __future__ import annotations

from datetime import datetime

from governance.audit.models import AuditEvent
from governance.rowsecurity import lifted
from workers.deployments.models import Deployment, DeploymentState, ServingPeriod


@lifted()
def period_keep(*, deployment: Deployment, event: AuditEvent) -> None:
    """Begin a period when the move of a locked deployment made it serve; else close what is open.

    Both at the time of the move's audit event. Clocks of several machines may differ: no period
    ends before it began, or begins before the last one ended. Past the actor's reach, who may write
    no history of their own.
    """
    last = ServingPeriod.objects.filter(deployment=deployment).order_by("-id").first()
    is_open = last is not None and last.serving_until is None
    if deployment.state == DeploymentState.SERVING:
        # An open period continues: the state was set without its transition, so no end was
        # recorded.
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
        # No other bytes make a deployment serve: `replica_report` compares.
        digest=deployment.release.version.digest,
        serving_from=max(event.occurred_at, previous or event.occurred_at),
        began_event=event,
    )
