"""Transitions of a thread, and the function that changes its state."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from governance.audit.services import audit_record
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.models import Review
from governance.reviews.selectors import review_resource, speaker_id
from governance.reviews.states import review_subject
from governance.reviews.threads.mentions import mentions_record, mentions_resolved
from governance.reviews.threads.models import EntryKind, ReviewThread, ThreadComment, ThreadState
from governance.state_machine import StateMachine

ALLOWED_TRANSITIONS: dict[ThreadState, frozenset[ThreadState]] = {
    ThreadState.OPEN: frozenset({ThreadState.RESOLVED}),
    ThreadState.RESOLVED: frozenset({ThreadState.OPEN}),
}
THREAD_STATES = StateMachine(model=ReviewThread, noun="thread", table=ALLOWED_TRANSITIONS)
_ENTRY_KINDS = {ThreadState.RESOLVED: EntryKind.RESOLVE, ThreadState.OPEN: EntryKind.REOPEN}
_ACTIONS = {
    ThreadState.RESOLVED: "review:resolve_thread",
    ThreadState.OPEN: "review:reopen_thread",
}


def thread_facts(thread: ReviewThread, entry: ThreadComment) -> dict[str, Any]:
    """Return the data of an entry's event in addition to its text."""
    return {
        "thread": thread.pk,
        "entry": entry.pk,
        "anchor": {"kind": thread.anchor_kind, "key": thread.anchor_key},
        "blocking": thread.blocking,
        "digest": entry.digest,
        "round": entry.round,
        "subject": f"{thread.review.subject_type} {thread.review.subject_id}",
    }


def thread_set_state(
    *, actor: Principal, review: Review, thread: ReviewThread, state: ThreadState, text: str
) -> ThreadComment:
    """Change the state of a locked thread of a locked review, with an entry and an event.

    Raises:
        WrongState: the thread already has this state.
    """
    resolved = state is ThreadState.RESOLVED
    thread.resolved_by_id = actor.person_id if resolved else None
    thread.resolved_at = timezone.now() if resolved else None
    THREAD_STATES.save_state(thread, state, ["resolved_by", "resolved_at"])
    thread.review = review
    text, people = mentions_resolved(actor, review, text)
    entry = ThreadComment.objects.create(
        thread=thread,
        person_id=speaker_id(actor),
        said=_ENTRY_KINDS[state],
        text=text,
        digest=review.digest,
        round=review.round,
    )
    audit_record(
        actor=actor,
        action=_ACTIONS[state],
        subject=review_subject(review),
        reason=text,
        department=review.department.slug,
        data={**thread_facts(thread, entry), **mentions_record(review, entry, people)},
        decision=authorize(
            actor=actor, action=Action.REVIEW_COMMENT, resource=review_resource(review)
        ),
    )
    return entry
