"""Drafts of comments, visible only to their author until they are submitted with a decision.

Drafts are private, so the audit log does not record them. It records a draft once it is submitted,
like any comment.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction

from governance.errors import NotFound
from governance.principals import Principal
from governance.reviews.models import Decision, Review, Verdict
from governance.reviews.selectors import speaker_id
from governance.reviews.threads.limits import check_room, checked_words
from governance.reviews.threads.models import Anchor, CommentDraft
from governance.reviews.threads.selectors import thread_locked, voice_of
from governance.reviews.threads.services import (
    check_anchor,
    checked_blocking,
    comment_write,
    thread_write,
    voice_locked,
)


def draft_add(
    *,
    actor: Principal,
    review_id: int,
    text: str,
    anchor: Anchor | None = None,
    thread_id: int | None = None,
    blocking: bool | None = None,
) -> CommentDraft:
    """Save a draft that begins a thread at `anchor`, or replies in the thread `thread_id`.

    Raises: as `thread_open` and `thread_reply`, because the draft will become a comment.
    """
    text = checked_words(text)
    place = anchor or Anchor()
    check_anchor(place)
    with transaction.atomic():
        voice = voice_locked(actor, review_id)
        review = voice.review
        thread = thread_locked(review, thread_id) if thread_id is not None else None
        if thread is not None:
            place, blocks = thread.anchor, False
        else:
            blocks = checked_blocking(voice, blocking)
        check_room(actor, review)
        return CommentDraft.objects.create(
            review=review,
            person_id=speaker_id(actor),
            thread=thread,
            anchor_kind=place.kind,
            anchor_key=place.key,
            blocking=blocks,
            text=text,
            digest=review.digest,
            round=review.round,
        )


def draft_edit(
    *,
    actor: Principal,
    review_id: int,
    draft_id: int,
    text: str | None = None,
    blocking: bool | None = None,
) -> CommentDraft:
    """Change the text of one's own draft, or whether it will block.

    The draft then refers to the present digest and round.

    Raises: as `draft_add`; NotFound also if it is another person's.
    """
    with transaction.atomic():
        voice = voice_locked(actor, review_id)
        draft = _own(actor, review_id, draft_id)
        if text is not None:
            draft.text = checked_words(text)
        if blocking is not None and draft.thread_id is None:
            draft.blocking = checked_blocking(voice, blocking)
        draft.digest, draft.round = voice.review.digest, voice.review.round
        draft.save(update_fields=["text", "blocking", "digest", "round", "updated_at"])
    return draft


def draft_discard(*, actor: Principal, review_id: int, draft_id: int) -> None:
    """Discard one's own draft, also in a closed review.

    Raises:
        NotFound: it does not exist, or is another person's.
    """
    with transaction.atomic():
        _own(actor, review_id, draft_id).delete()


def drafts_submit(*, actor: Principal, review: Review, decision: Decision) -> int:
    """Submit the actor's drafts in a locked review, with their decision; returns their number.

    With an approval, none of them blocks: the approver has already considered them. A draft that
    was written on an earlier digest refers to that digest.

    Raises:
        DomainError: the actor may not comment.
    """
    drafts = list(review.comment_drafts.filter(person_id=speaker_id(actor)).select_for_update())
    if not drafts:
        return 0
    voice = voice_of(actor, review)
    if voice.obstacle is not None:
        raise voice.obstacle
    for draft in drafts:
        written_on = (draft.digest, draft.round)
        fields: dict[str, Any] = {
            "voice": voice,
            "text": draft.text,
            "written_on": written_on,
            "decision": decision,
        }
        if draft.thread_id is not None:
            comment_write(thread=thread_locked(review, draft.thread_id), **fields)
        else:
            # A draft does not block if its author has had a part in the subject since.
            blocks = draft.blocking and voice.decides and decision.verdict != Verdict.APPROVE
            thread_write(anchor=draft.anchor, blocking=blocks, **fields)
    review.comment_drafts.filter(pk__in=[draft.pk for draft in drafts]).delete()
    return len(drafts)


def _own(actor: Principal, review_id: int, draft_id: int) -> CommentDraft:
    """Return the actor's own draft, locked. Raises NotFound for all others."""
    drafts = CommentDraft.objects.select_for_update().filter(review_id=review_id, pk=draft_id)
    draft = drafts.filter(person_id=actor.person_id).first() if actor.person_id else None
    if draft is None:
        raise NotFound(f"You have no draft {draft_id} in that review.")
    return draft
