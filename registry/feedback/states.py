"""The state machine of feedback: one table, and the function that moves a locked row."""

from __future__ import annotations

from governance.errors import WrongState
from registry.feedback.models import Feedback, FeedbackState

ALLOWED_TRANSITIONS: dict[FeedbackState, frozenset[FeedbackState]] = {
    FeedbackState.PENDING: frozenset(
        {FeedbackState.ACCEPTED, FeedbackState.REJECTED, FeedbackState.ERASED}
    ),
    FeedbackState.ACCEPTED: frozenset({FeedbackState.REJECTED, FeedbackState.ERASED}),
    FeedbackState.REJECTED: frozenset({FeedbackState.ACCEPTED, FeedbackState.ERASED}),
    FeedbackState.ERASED: frozenset(),
}


def set_state(feedback: Feedback, state: FeedbackState) -> None:
    """Move a locked row; the caller saves it.

    Raises:
        WrongState: there is no way from where it stands.
    """
    current = FeedbackState(feedback.state)
    if state not in ALLOWED_TRANSITIONS[current]:
        raise WrongState(
            f"{str(feedback).capitalize()} is {current.label.lower()}; "
            f"it cannot become {state.label.lower()}."
        )
    feedback.state = state
