"""From when to when a deployment served, kept as it moves."""

from __future__ import annotations

from governance.audit.models import AuditEvent
from governance.rowsecurity import lifted
from workers.deployments.models import Deployment, DeploymentState, ServingPeriod


@lifted()
def period_keep(*, deployment: Deployment, before: DeploymentState, event: AuditEvent) -> None:
    """Close the period that the move of a locked deployment ended, or begin the one it began.

    Both at the time of the move's audit event. Clocks of several machines may differ: no period
    ends before it began, or begins before the last one ended. Past the actor's reach, who may write
    no history of their own.
    """
    state = DeploymentState(deployment.state)
    periods = ServingPeriod.objects.filter(deployment=deployment)
    if before is DeploymentState.SERVING:
        for period in periods.filter(serving_until=None):
            period.serving_until = max(event.occurred_at, period.serving_from)
            period.ended_as = state.value
            period.ended_event = event
            period.save(update_fields=["serving_until", "ended_as", "ended_event"])
    if state is DeploymentState.SERVING:
        last = periods.order_by("-id").values_list("serving_until", flat=True).first()
        ServingPeriod.objects.create(
            deployment=deployment,
            # No other bytes make a deployment serve: `replica_report` compares.
            digest=deployment.release.version.digest,
            serving_from=max(event.occurred_at, last or event.occurred_at),
            began_event=event,
        )
