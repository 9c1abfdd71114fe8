"""Transitions of an intake."""

from __future__ import annotations

from governance.errors import WrongState
from registry.intake.models import Intake, IntakeState

ALLOWED_TRANSITIONS: dict[IntakeState, frozenset[IntakeState]] = {
    IntakeState.QUARANTINED: frozenset(
        {IntakeState.CHECKING, IntakeState.AWAITING_SIGN_OFF, IntakeState.REJECTED}
    ),
    IntakeState.CHECKING: frozenset({IntakeState.AWAITING_SIGN_OFF, IntakeState.REJECTED}),
    IntakeState.AWAITING_SIGN_OFF: frozenset({IntakeState.TRUSTED, IntakeState.REJECTED}),
    IntakeState.TRUSTED: frozenset(),
    IntakeState.REJECTED: frozenset(),
}


def set_state(intake: Intake, state: IntakeState) -> None:
    """Move a locked row; the caller saves it.

    Raises:
        WrongState: there is no way from where it stands.
    """
    current = IntakeState(intake.state)
    if state not in ALLOWED_TRANSITIONS[current]:
        raise WrongState(
            f"Intake {intake.pk} is {current.label.lower()}; "
            f"it cannot become {state.label.lower()}."
        )
    intake.state = state
