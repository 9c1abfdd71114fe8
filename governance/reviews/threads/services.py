"""Threads of a review: begin one, answer in it, resolve it, reopen it."""

from __future__ import annotations

from django.db import transaction

from governance.audit.services import audit_record
from governance.errors import InvalidInput
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.models import Decision, Review
from governance.reviews.selectors import review_resource, speaker_id
from governance.reviews.states import review_locked, review_subject
from governance.reviews.threads.limits import check_moves, check_room, checked_words
from governance.reviews.threads.mentions import mentions_record, mentions_resolved
from governance.reviews.threads.models import (
    KEY_MAX,
    Anchor,
    AnchorKind,
    ReviewThread,
    ThreadComment,
    ThreadState,
)
from governance.reviews.threads.selectors import Voice, thread_locked, voice_of
from governance.reviews.threads.states import thread_facts, thread_set_state


def thread_open(
    *,
    actor: Principal,
    review_id: int,
    anchor: Anchor,
    text: str,
    blocking: bool | None = None,
) -> ThreadComment:
    """Begin a thread; returns its first comment.

    Args:
        anchor: Of a place that the caller knows to exist.
        blocking: Whether it must be resolved before approval; by default, reviewers' threads block.

    Raises:
        InvalidInput: no words, too many, or no such kind of place.
        NotFound, NotPermitted: the policy refuses, or the actor blocks and is no reviewer.
        WrongState: the review is closed, or has enough of the actor's comments.
    """
    text = checked_words(text)
    check_anchor(anchor)
    with transaction.atomic():
        voice = heard(actor, review_id)
        blocks = checked_blocking(voice, blocking)
        check_room(actor, voice.review)
        return thread_write(voice=voice, anchor=anchor, text=text, blocking=blocks)


def thread_reply(*, actor: Principal, review_id: int, thread_id: int, text: str) -> ThreadComment:
    """Say something in a thread, open or resolved.

    Raises: as `thread_open`; NotFound also when there is no such thread.
    """
    text = checked_words(text)
    with transaction.atomic():
        voice = heard(actor, review_id)
        thread = thread_locked(voice.review, thread_id)
        check_room(actor, voice.review)
        return comment_write(voice=voice, thread=thread, text=text)


def thread_resolve(
    *, actor: Principal, review_id: int, thread_id: int, text: str = ""
) -> ThreadComment:
    """Say that nothing is left to do about it, with a word if one likes.

    Raises:
        InvalidInput: too many words.
        NotFound, NotPermitted: no such thread, or the actor neither began it nor is a reviewer.
        WrongState: it is resolved already, the review is closed, or the actor did it too often.
    """
    return _move(actor, review_id, thread_id, ThreadState.RESOLVED, text)


def thread_reopen(
    *, actor: Principal, review_id: int, thread_id: int, text: str = ""
) -> ThreadComment:
    """Say that something is left to do after all. Raises: as `thread_resolve`."""
    return _move(actor, review_id, thread_id, ThreadState.OPEN, text)


def _move(
    actor: Principal, review_id: int, thread_id: int, state: ThreadState, text: str
) -> ThreadComment:
    text = checked_words(text, needed=False)
    with transaction.atomic():
        voice = heard(actor, review_id)
        thread = thread_locked(voice.review, thread_id)
        obstacle = voice.resolving(thread)
        if obstacle is not None:
            raise obstacle
        check_moves(actor, voice.review)
        return thread_set_state(
            actor=actor, review=voice.review, thread=thread, state=state, text=text
        )


def heard(actor: Principal, review_id: int) -> Voice:
    """The actor's voice in a review whose row is locked: approving waits for them, or they see it.

    Raises:
        DomainError: they may say nothing in it.
    """
    voice = voice_of(actor, review_locked(review_id))
    if voice.obstacle is not None:
        raise voice.obstacle
    return voice


def check_anchor(anchor: Anchor) -> None:
    """Raises InvalidInput unless it has the form of a place."""
    if anchor.kind not in AnchorKind.values:
        raise InvalidInput(
            f"There is no kind of place {anchor.kind[:20]!r}.",
            fields={"kind": [f"is one of {', '.join(AnchorKind.values)}"]},
        )
    general = anchor.kind == AnchorKind.GENERAL
    if bool(anchor.key) == general or len(anchor.key) > KEY_MAX or "\x00" in anchor.key:
        raise InvalidInput(
            "A comment on the whole names no part of it."
            if general
            else f"A place of the kind {anchor.kind} is named by 1 to {KEY_MAX} characters.",
            fields={"key": ["is not empty" if general else "is empty or too long"]},
        )


def checked_blocking(voice: Voice, blocking: bool | None) -> bool:
    """Return True when their thread blocks the approval; only a reviewer's does.

    Raises:
        NotPermitted: they want it to, and are none.
    """
    if blocking is None:
        return voice.decides
    obstacle = voice.blocking() if blocking else None
    if obstacle is not None:
        raise obstacle
    return blocking


def thread_write(
    *,
    voice: Voice,
    anchor: Anchor,
    text: str,
    blocking: bool,
    written_on: tuple[str, int] | None = None,
    decision: Decision | None = None,
) -> ThreadComment:
    """The rows and the event of a thread that was allowed. `written_on` is digest and round."""
    digest, number = written_on or (voice.review.digest, voice.review.round)
    thread = ReviewThread.objects.create(
        review=voice.review,
        anchor_kind=anchor.kind,
        anchor_key=anchor.key,
        digest=digest,
        round=number,
        blocking=blocking,
        opened_by_id=speaker_id(voice.actor),
    )
    return comment_write(
        voice=voice, thread=thread, text=text, written_on=written_on, decision=decision
    )


def comment_write(
    *,
    voice: Voice,
    thread: ReviewThread,
    text: str,
    written_on: tuple[str, int] | None = None,
    decision: Decision | None = None,
) -> ThreadComment:
    """The row and the event of a comment that was allowed."""
    review: Review = voice.review
    digest, number = written_on or (review.digest, review.round)
    thread.review = review
    text, people = mentions_resolved(voice.actor, review, text)
    entry = ThreadComment.objects.create(
        thread=thread,
        person_id=speaker_id(voice.actor),
        text=text,
        digest=digest,
        round=number,
        decision=decision,
    )
    audit_record(
        actor=voice.actor,
        action=Action.REVIEW_COMMENT,
        subject=review_subject(review),
        reason=text,
        department=review.department.slug,
        data={**thread_facts(thread, entry), **mentions_record(review, entry, people)},
        decision=authorize(
            actor=voice.actor, action=Action.REVIEW_COMMENT, resource=review_resource(review)
        ),
    )
    return entry
