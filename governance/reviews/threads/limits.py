"""Limits on one person's comments in one review, because an evidence pack contains all of them."""

from __future__ import annotations

from django.db.models import QuerySet

from governance.errors import InvalidInput, WrongState
from governance.principals import Principal
from governance.reviews.models import Review, Verdict
from governance.reviews.selectors import speaker_id
from governance.reviews.threads.models import TEXT_MAX, EntryKind, ThreadComment

# Comments in threads, comments with decisions, and drafts of them.
COMMENTS_MAX = 100
# Resolutions and reopenings of threads.
MOVES_MAX = 100


def check_room(actor: Principal, review: Review) -> None:
    """Raise WrongState if the actor has reached the limit of comments in this review."""
    outside = review.decisions.filter(person_id=speaker_id(actor), verdict=Verdict.COMMENT).count()
    drafts = review.comment_drafts.filter(person_id=speaker_id(actor)).count()
    in_threads = _entries(actor, review).filter(said=EntryKind.COMMENT).count()
    if outside + in_threads + drafts >= COMMENTS_MAX:
        raise WrongState(
            f"You have written {COMMENTS_MAX} comments on review {review.pk}; that is the limit.",
            hint="Decide, request changes, or comment elsewhere and link to it here.",
        )


def check_moves(actor: Principal, review: Review) -> None:
    """Raise WrongState if the actor has resolved and reopened threads too often in this review."""
    if _entries(actor, review).exclude(said=EntryKind.COMMENT).count() >= MOVES_MAX:
        raise WrongState(
            f"You have resolved and reopened threads of review {review.pk} {MOVES_MAX} times; that "
            "is the limit.",
            hint="Another reviewer can.",
        )


def _entries(actor: Principal, review: Review) -> QuerySet[ThreadComment]:
    return ThreadComment.objects.filter(thread__review=review, person_id=speaker_id(actor))


def checked_words(text: str, *, needed: bool = True) -> str:
    """Return the text without surrounding space and NUL, which the database cannot store.

    Raises:
        InvalidInput: it is empty although `needed`, or too long.
    """
    text = text.replace("\x00", "").strip()
    if (needed and not text) or len(text) > TEXT_MAX:
        raise InvalidInput(
            f"A comment has 1 to {TEXT_MAX} characters.",
            fields={"text": ["is too long" if text else "is empty"]},
        )
    return text
