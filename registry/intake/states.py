"""State transitions of intakes."""

from __future__ import annotations

from governance.state_machine import StateMachine
from registry.intake.models import Intake, IntakeState

ALLOWED_TRANSITIONS: dict[IntakeState, frozenset[IntakeState]] = {
    IntakeState.QUARANTINED: frozenset(
        {
            IntakeState.CHECKING,
            IntakeState.PROBING,
            IntakeState.AWAITING_SIGN_OFF,
            IntakeState.REJECTED,
        }
    ),
    IntakeState.CHECKING: frozenset(
        {IntakeState.PROBING, IntakeState.AWAITING_SIGN_OFF, IntakeState.REJECTED}
    ),
    IntakeState.PROBING: frozenset({IntakeState.AWAITING_SIGN_OFF, IntakeState.REJECTED}),
    IntakeState.AWAITING_SIGN_OFF: frozenset({IntakeState.TRUSTED, IntakeState.REJECTED}),
    IntakeState.TRUSTED: frozenset(),
    IntakeState.REJECTED: frozenset(),
}
INTAKE_STATES = StateMachine(
    model=Intake,
    noun="intake",
    table=ALLOWED_TRANSITIONS,
    related=("model__department", "submitted_by", "base__model"),
)
