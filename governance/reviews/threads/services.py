"""Threads of a review: open, reply, resolve, reopen."""

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
        anchor: Part of the subject; the caller has checked that it exists.
        blocking: Whether it must be resolved before approval; by default, reviewers' threads block.

    Raises:
        InvalidInput: the text is empty or too long, or the anchor's kind is unknown.
        NotFound, NotPermitted: the policy denies it, or only reviewers may block.
        WrongState: the review is closed, or the actor has reached the limit of comments.
    """
    text = checked_words(text)
    check_anchor(anchor)
    with transaction.atomic():
        voice = voice_locked(actor, review_id)
        blocks = checked_blocking(voice, blocking)
        check_room(actor, voice.review)
        return thread_write(voice=voice, anchor=anchor, text=text, blocking=blocks)


def thread_reply(*, actor: Principal, review_id: int, thread_id: int, text: str) -> ThreadComment:
    """Reply in a thread, open or resolved.

    Raises: as `thread_open`; NotFound also if the thread does not exist.
    """
    text = checked_words(text)
    with transaction.atomic():
        voice = voice_locked(actor, review_id)
        thread = thread_locked(voice.review, thread_id)
        check_room(actor, voice.review)
        return comment_write(voice=voice, thread=thread, text=text)


def thread_resolve(
    *, actor: Principal, review_id: int, thread_id: int, text: str = ""
) -> ThreadComment:
    """Resolve a thread, with an optional comment.

    Raises:
        InvalidInput: the text is too long.
        NotFound, NotPermitted: it does not exist, or the actor is not its author or a reviewer.
        WrongState: it is already resolved, the review is closed, or the actor did it too often.
    """
    return _move(actor, review_id, thread_id, ThreadState.RESOLVED, text)


def thread_reopen(
    *, actor: Principal, review_id: int, thread_id: int, text: str = ""
) -> ThreadComment:
    """Reopen a thread, with an optional comment. Raises: as `thread_resolve`."""
    return _move(actor, review_id, thread_id, ThreadState.OPEN, text)


def _move(
    actor: Principal, review_id: int, thread_id: int, state: ThreadState, text: str
) -> ThreadComment:
    text = checked_words(text, needed=False)
    with transaction.atomic():
        voice = voice_locked(actor, review_id)
        thread = thread_locked(voice.review, thread_id)
        obstacle = voice.resolving(thread)
        if obstacle is not None:
            raise obstacle
        check_moves(actor, voice.review)
        return thread_set_state(
            actor=actor, review=voice.review, thread=thread, state=state, text=text
        )


def voice_locked(actor: Principal, review_id: int) -> Voice:
    """Lock a review, which orders comments and approvals, and return the actor's rights in it.

    Raises:
        DomainError: the actor may not comment.
    """
    voice = voice_of(actor, review_locked(review_id))
    if voice.obstacle is not None:
        raise voice.obstacle
    return voice


def check_anchor(anchor: Anchor) -> None:
    """Raise InvalidInput unless the anchor has a valid kind and key."""
    if anchor.kind not in AnchorKind.values:
        raise InvalidInput(
            f"There is no kind of part {anchor.kind[:20]!r}.",
            fields={"kind": [f"is one of {', '.join(AnchorKind.values)}"]},
        )
    general = anchor.kind == AnchorKind.GENERAL
    if bool(anchor.key) == general or len(anchor.key) > KEY_MAX or "\x00" in anchor.key:
        raise InvalidInput(
            "A comment on the whole subject must not name a part of it."
            if general
            else f"The key of a part of the kind {anchor.kind} has 1 to {KEY_MAX} characters.",
            fields={"key": ["is not empty" if general else "is empty or too long"]},
        )


def checked_blocking(voice: Voice, blocking: bool | None) -> bool:
    """Return whether the actor's new thread blocks the approval; by default, a reviewer's does.

    Raises:
        NotPermitted: it should block, but the actor is not a reviewer.
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
    """Write a permitted thread and its event. `written_on` is the digest and round."""
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
    """Write a permitted comment and its event."""
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
