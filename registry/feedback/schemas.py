"""Input about feedback."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from governance.bounds import NAME_MAX, REQUEST_ID_MAX
from governance.schemas import Filter, Id, Line, Schema, Verbatim
from registry.feedback.models import FeedbackState
from registry.feedback.services import REASON_MAX, TEXT_MAX

NAMED_MAX = 1_000


class FeedbackFilter(Filter):
    """Filters of the list."""

    state: FeedbackState | None = None
    deployment: Line | None = Field(default=None, max_length=NAME_MAX)
    request_id: Line | None = Field(default=None, max_length=REQUEST_ID_MAX)


class FeedbackReview(Schema):
    """Decision on feedback; with the reviewer's right answer if the sender gave none."""

    accept: bool
    correction: Verbatim = Field(default="", max_length=TEXT_MAX)


class LoggedFeedback(Schema):
    """Reason for using a logged request as feedback, and the right answer if it is another one."""

    reason: Line = Field(max_length=REASON_MAX)
    correction: Verbatim = Field(default="", max_length=TEXT_MAX)


class FeedbackErasure(Schema):
    """The reason of an erasure, which the audit log keeps."""

    reason: Line = Field(max_length=REASON_MAX)


def _each_once(ids: list[int]) -> list[int]:
    if len(set(ids)) < len(ids):
        raise ValueError("an ID appears twice")
    return ids


class FeedbackVersion(Schema):
    """Accepted feedback, by ID, and the dataset version whose rows come first."""

    feedback: Annotated[list[Id], AfterValidator(_each_once)] = Field(
        min_length=1, max_length=NAMED_MAX
    )
    base: Id | None = None
