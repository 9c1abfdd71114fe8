"""Transitions of feedback."""

from __future__ import annotations

from governance.state_machine import StateMachine
from registry.feedback.models import Feedback, FeedbackState

ALLOWED_TRANSITIONS: dict[FeedbackState, frozenset[FeedbackState]] = {
    FeedbackState.PENDING: frozenset(
        {FeedbackState.ACCEPTED, FeedbackState.REJECTED, FeedbackState.ERASED}
    ),
    FeedbackState.ACCEPTED: frozenset({FeedbackState.REJECTED, FeedbackState.ERASED}),
    FeedbackState.REJECTED: frozenset({FeedbackState.ACCEPTED, FeedbackState.ERASED}),
    FeedbackState.ERASED: frozenset(),
}
FEEDBACK_STATES = StateMachine(model=Feedback, noun="feedback", table=ALLOWED_TRANSITIONS)
