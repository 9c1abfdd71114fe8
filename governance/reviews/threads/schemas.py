"""Input about threads, drafts of comments, and assignees."""

from __future__ import annotations

from pydantic import Field

from governance.reviews.threads.models import KEY_MAX, TEXT_MAX, AnchorKind, ThreadState
from governance.schemas import (
    Choice,
    Filter,
    Id,
    LineOrEmpty,
    Paragraphs,
    ParagraphsOrEmpty,
    Schema,
)


class ThreadFilter(Filter):
    """Filters of the list."""

    state: ThreadState | None = None


class AnchorPlace(Schema):
    """A part of the release; by default, the whole release."""

    kind: Choice[AnchorKind] = AnchorKind.GENERAL
    key: LineOrEmpty = Field(default="", max_length=KEY_MAX)


class NewThread(Schema):
    """Text and part of a new thread. `blocking` defaults to true for reviewers."""

    text: Paragraphs = Field(max_length=TEXT_MAX)
    anchor: AnchorPlace | None = None
    blocking: bool | None = None


class NewCommentDraft(NewThread):
    """Draft of a new thread or, with `thread`, of a reply."""

    thread: Id | None = None


class CommentDraftChange(Schema):
    """Fields to change."""

    text: Paragraphs | None = Field(default=None, max_length=TEXT_MAX)
    blocking: bool | None = None


class ThreadReply(Schema):
    """Text of the reply."""

    text: Paragraphs = Field(max_length=TEXT_MAX)


class ThreadNote(Schema):
    """Optional comment."""

    text: ParagraphsOrEmpty = Field(default="", max_length=TEXT_MAX)


class NewAssignee(Schema):
    """Person to assign the review to; they must be able to decide on it."""

    person: Id
