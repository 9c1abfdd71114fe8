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
    """The rights of one person in one review: `obstacle` keeps them from commenting, and `decides`
    is true for its reviewers, who block and resolve.
    """

    actor: Principal
    review: Review
    obstacle: DomainError | None
    decides: bool

    def resolving(self, thread: ReviewThread) -> DomainError | None:
        """Return the obstacle to resolving or reopening `thread`: its author may, and reviewers."""
        if self.obstacle is not None:
            return self.obstacle
        if self.decides:
            return None
        # Who has answered for the department since has a part in it, and their thread blocks still.
        part = self.actor.person_id in self.review.excluded_people
        if thread.opened_by_id == self.actor.person_id and not (thread.blocking and part):
            return None
        if thread.opened_by_id == self.actor.person_id:
            return self._refused(
                f"{self.actor.name} had a part in what review {self.review.pk} of "
                f"{self.review.subject_name} is about since thread {thread.pk} was begun, which "
                "blocks it; it was not changed.",
                hint="Answer in it; another reviewer resolves it.",
            )
        return self._refused(
            f"{self.actor.name} did not begin thread {thread.pk} of review {self.review.pk} of "
            f"{self.review.subject_name} and does not decide on it; it was not changed.",
            hint="Answer in it; whoever began it, or another reviewer, resolves it.",
        )

    def blocking(self) -> DomainError | None:
        """Return the obstacle to blocking the approval with a thread."""
        if self.obstacle is not None or self.decides:
            return self.obstacle
        return self._refused(
            f"{self.actor.name} does not decide on review {self.review.pk} of "
            f"{self.review.subject_name}; their comment blocks nothing.",
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
    # Last: what is recorded of a comment is that commenting was let through.
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
    """Every thread, oldest first, with what was said in it. Who may see the review may see them."""
    mentions = Prefetch("mentions", queryset=Mention.objects.select_related("person"))
    said = ThreadComment.objects.select_related("person").prefetch_related(mentions)
    return review.threads.select_related("opened_by", "resolved_by").prefetch_related(
        Prefetch("comments", queryset=said)
    )


def thread_get(review: Review, thread_id: int) -> ReviewThread:
    """One thread of `review`, as `threads_of`.

    Raises:
        NotFound: there is none there.
    """
    thread = threads_of(review).filter(pk=thread_id).first()
    if thread is None:
        raise _no_thread(review, thread_id)
    return thread


def thread_locked(review: Review, thread_id: int) -> ReviewThread:
    """One thread of a review whose row is locked.

    Raises:
        NotFound: there is none there.
    """
    thread = review.threads.select_for_update().filter(pk=thread_id).first()
    if thread is None:
        raise _no_thread(review, thread_id)
    return thread


def _no_thread(review: Review, thread_id: int) -> NotFound:
    return NotFound(f"There is no thread {thread_id} in review {review.pk}.")


def drafts_of(actor: Principal, review: Review) -> QuerySet[CommentDraft]:
    """Return the unsubmitted comments of `actor` alone, oldest first."""
    if actor.person_id is None:
        return review.comment_drafts.none()
    return review.comment_drafts.filter(person_id=actor.person_id)
