"""State transitions of batches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.utils import timezone

from governance.audit.services import Subject
from governance.policy.decisions import Authorization
from governance.principals import Principal
from governance.state_machine import StateMachine
from registry.batches.models import Batch, BatchState

ALLOWED_TRANSITIONS: dict[BatchState, frozenset[BatchState]] = {
    BatchState.VALIDATING: frozenset(
        {
            BatchState.IN_PROGRESS,
            BatchState.FINALIZING,
            BatchState.FAILED,
            BatchState.CANCELLING,
        }
    ),
    BatchState.IN_PROGRESS: frozenset({BatchState.FINALIZING, BatchState.CANCELLING}),
    BatchState.FINALIZING: frozenset({BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED}),
    BatchState.CANCELLING: frozenset({BatchState.CANCELLED}),
    BatchState.COMPLETED: frozenset(),
    BatchState.FAILED: frozenset(),
    BatchState.EXPIRED: frozenset(),
    BatchState.CANCELLED: frozenset(),
}
BATCH_STATES = StateMachine(
    model=Batch,
    noun="batch",
    table=ALLOWED_TRANSITIONS,
    hint="create a new batch",
    related=("department",),
)
OPEN = frozenset(state for state, following in ALLOWED_TRANSITIONS.items() if following)
_VERBS: dict[BatchState, str] = {
    BatchState.IN_PROGRESS: "start",
    BatchState.FINALIZING: "finalize",
    BatchState.COMPLETED: "complete",
    BatchState.FAILED: "fail",
    BatchState.EXPIRED: "expire",
    BatchState.CANCELLING: "cancel",
    BatchState.CANCELLED: "end",
}


def batch_subject(batch: Batch) -> Subject:
    """Return the batch as a subject of audit events."""
    return Subject("batch", batch.pk, str(batch))


def batch_move(
    batch: Batch,
    to: BatchState,
    *,
    actor: Principal,
    fields: Collection[str] = (),
    reason: str = "",
    data: Mapping[str, Any] | None = None,
    decision: Authorization | None = None,
) -> None:
    """Change the state of a locked batch, save it with `fields`, and record the event.

    Raises:
        WrongState: the table does not allow it.
    """
    now = timezone.now()
    batch.reached = {**batch.reached, to.value: int(now.timestamp())}
    if not ALLOWED_TRANSITIONS[to]:
        batch.ended_at, batch.lease_until = now, None
    BATCH_STATES.move(
        batch,
        to,
        actor=actor,
        action=f"batch:{_VERBS[to]}",
        subject=batch_subject(batch),
        fields=("reached", "ended_at", "lease_until", *fields),
        reason=reason,
        department=batch.department.slug,
        data={"completed": batch.completed, "failed": batch.failed, **(data or {})},
        decision=decision,
    )
