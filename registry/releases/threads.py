"""Comments at places of a release: threads, and drafts of them, in its newest review."""

from __future__ import annotations

from django.db import transaction

from governance.errors import NotFound
from governance.principals import Principal
from governance.reviews.models import Review
from governance.reviews.threads.drafts import draft_add
from governance.reviews.threads.models import Anchor, CommentDraft, ThreadComment
from governance.reviews.threads.services import thread_open
from registry.releases.anchors import WHOLE, check_place
from registry.releases.selectors import release_get, release_review
from registry.releases.states import release_locked


def release_review_get(*, actor: Principal, release_id: int) -> Review:
    """Return the newest review of a release that `actor` may see.

    Raises:
        NotFound: it does not exist.
    """
    release = release_get(actor=actor, id=release_id)
    review = release_review(release)
    if review is None:
        raise NotFound(f"Release {release.pk} has no review.")
    return review


def release_thread_open(
    *,
    actor: Principal,
    release_id: int,
    text: str,
    anchor: Anchor = WHOLE,
    blocking: bool | None = None,
) -> ThreadComment:
    """Open a thread at a place of the release.

    Raises:
        InvalidInput: the place does not exist in its dossier.
        DomainError: as `thread_open`.
    """
    with transaction.atomic():
        review = _locked(actor, release_id, anchor)
        return thread_open(
            actor=actor, review_id=review.pk, anchor=anchor, text=text, blocking=blocking
        )


def release_draft_add(
    *,
    actor: Principal,
    release_id: int,
    text: str,
    anchor: Anchor = WHOLE,
    thread_id: int | None = None,
    blocking: bool | None = None,
) -> CommentDraft:
    """Save a draft of a comment at a place of the release, or in a thread.

    Raises:
        InvalidInput: the place does not exist in its dossier.
        DomainError: as `draft_add`.
    """
    with transaction.atomic():
        review = _locked(actor, release_id, None if thread_id else anchor)
        return draft_add(
            actor=actor,
            review_id=review.pk,
            anchor=anchor,
            thread_id=thread_id,
            text=text,
            blocking=blocking,
        )


def _locked(actor: Principal, release_id: int, anchor: Anchor | None) -> Review:
    """Return the review, with the release's row locked so that its dossier cannot change.

    Raises:
        InvalidInput: the place does not exist.
        NotFound: the release does not exist, or the actor may not see it.
    """
    review = release_review_get(actor=actor, release_id=release_id)
    release = release_locked(release_id)
    if anchor is not None:
        check_place(release, review, anchor)
    return review
