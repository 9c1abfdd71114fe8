"""Threads of a review: permitted actions, comments, and drafts."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Prefetch, QuerySet

from governance.audit.services import Attempt
from governance.errors import DomainError, NotFound, NotPermitted
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.models import Review, Verdict
from governance.reviews.selectors import decision_obstacle, review_resource, separation_obstacle
from governance.reviews.states import review_subject
from governance.reviews.threads.models import CommentDraft, Mention, ReviewThread, ThreadComment


@dataclass(frozen=True, slots=True)
class Voice:
    """Rights of one actor in one review. `obstacle`: the error that prevents comments. `decides`:
    whether they are a reviewer, who may block the approval and resolve threads.
    """

    actor: Principal
    review: Review
    obstacle: DomainError | None
    decides: bool

    def resolving(self, thread: ReviewThread) -> DomainError | None:
        """Return the obstacle to resolving or reopening `thread`; its author and reviewers may."""
        if self.obstacle is not None:
            return self.obstacle
        if self.decides:
            return None
        # An author who has since answered for the department may not lift their own block.
        had_part = self.actor.person_id in self.review.excluded_people
        if thread.opened_by_id == self.actor.person_id and not (thread.blocking and had_part):
            return None
        if thread.opened_by_id == self.actor.person_id:
            return self._refused(
                f"{self.actor.name} had a part in the subject of review {self.review.pk} of "
                f"{self.review.subject_name} after beginning thread {thread.pk}, which blocks the "
                "approval; the thread was not changed.",
                hint="Reply in it; another reviewer can resolve it.",
            )
        return self._refused(
            f"{self.actor.name} did not begin thread {thread.pk} of review {self.review.pk} of "
            f"{self.review.subject_name} and does not decide on it; it was not changed.",
            hint="Reply in it; its author, or a reviewer, can resolve it.",
        )

    def blocking(self) -> DomainError | None:
        """Return the obstacle to blocking the approval with a thread."""
        if self.obstacle is not None or self.decides:
            return self.obstacle
        return self._refused(
            f"{self.actor.name} does not decide on review {self.review.pk} of "
            f"{self.review.subject_name}; their comment cannot block the approval.",
            hint="Comment without blocking.",
        )

    def _refused(self, sentence: str, *, hint: str) -> NotPermitted:
        return NotPermitted(
            sentence,
            code="reviewers_only",
            hint=hint,
            attempt=Attempt(
                actor=self.actor,
                action=Action.REVIEW_COMMENT.value,
                subject=review_subject(self.review),
                department=self.review.department.slug,
            ),
        )


def voice_of(actor: Principal, review: Review) -> Voice:
    """Return the rights of `actor` in `review`."""
    decides = _decides(actor, review)
    # Check comments last: the last permission is the one that the audit log records.
    return Voice(actor, review, decision_obstacle(actor, review, Verdict.COMMENT), decides)


def _decides(actor: Principal, review: Review) -> bool:
    action = Action.RELEASE_DECIDE
    if separation_obstacle(actor, review, "block", action) is not None:
        return False
    try:
        authorize(actor=actor, action=action, resource=review_resource(review))
    except DomainError:
        return False
    return True


def threads_of(review: Review) -> QuerySet[ReviewThread]:
    """Return all threads with their entries, oldest first, for anyone who may see the review."""
    mentions = Prefetch("mentions", queryset=Mention.objects.select_related("person"))
    entries = ThreadComment.objects.select_related("person").prefetch_related(mentions)
    return review.threads.select_related("opened_by", "resolved_by").prefetch_related(
        Prefetch("comments", queryset=entries)
    )


def thread_get(review: Review, thread_id: int) -> ReviewThread:
    """Return one thread of the review, as in `threads_of`.

    Raises:
        NotFound: the review has no such thread.
    """
    thread = threads_of(review).filter(pk=thread_id).first()
    if thread is None:
        raise _no_thread(review, thread_id)
    return thread


def thread_locked(review: Review, thread_id: int) -> ReviewThread:
    """Lock and return one thread of a locked review.

    Raises:
        NotFound: the review has no such thread.
    """
    thread = review.threads.select_for_update().filter(pk=thread_id).first()
    if thread is None:
        raise _no_thread(review, thread_id)
    return thread


def _no_thread(review: Review, thread_id: int) -> NotFound:
    return NotFound(f"There is no thread {thread_id} in review {review.pk}.")


def drafts_of(actor: Principal, review: Review) -> QuerySet[CommentDraft]:
    """Return the actor's own drafts, oldest first."""
    if actor.person_id is None:
        return review.comment_drafts.none()
    return review.comment_drafts.filter(person_id=actor.person_id)
