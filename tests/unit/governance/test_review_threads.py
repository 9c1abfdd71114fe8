"""Threads of a review: who begins, answers, resolves and blocks; and drafts of comments."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from governance.audit.models import AuditEvent
from governance.errors import DomainError, InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.erasure import person_erase
from governance.people.models import Person
from governance.principals import Principal, service_principal
from governance.reviews.models import Review, ReviewState
from governance.reviews.selectors import review_standing, verdict_obstacle_words
from governance.reviews.services import review_answer, review_close, review_decide
from governance.reviews.threads import limits
from governance.reviews.threads.drafts import draft_add, draft_discard, draft_edit
from governance.reviews.threads.models import (
    Anchor,
    CommentDraft,
    ReviewThread,
    ThreadComment,
    ThreadState,
)
from governance.reviews.threads.selectors import drafts_of, thread_get, threads_of, voice_of
from governance.reviews.threads.services import (
    thread_open,
    thread_reopen,
    thread_reply,
    thread_resolve,
)
from governance.reviews.threads.states import ALLOWED_TRANSITIONS
from tests.unit.audit_support import bodies

pytestmark = pytest.mark.sweep

ITEM = Anchor("item", "oversight")
OTHER = "b" * 64


def begin(actor: Principal, review: Review, text: str = "Who?", **more: Any) -> ReviewThread:
    asked: dict[str, Any] = {"anchor": ITEM, **more}
    return thread_open(actor=actor, review_id=review.pk, text=text, **asked).thread


def draft(actor: Principal, review: Review, text: str = "Later.", **more: Any) -> CommentDraft:
    return draft_add(actor=actor, review_id=review.pk, text=text, **more)


def decide(actor: Principal, review: Review, verdict: str, **more: Any) -> Review:
    asked: dict[str, Any] = {"reason": "because", "digest": review.digest, **more}
    return review_decide(actor=actor, review_id=review.pk, verdict=verdict, **asked)


def move(actor: Principal, thread: ReviewThread, state: ThreadState, text: str = "") -> None:
    call = thread_resolve if state is ThreadState.RESOLVED else thread_reopen
    call(actor=actor, review_id=thread.review_id, thread_id=thread.pk, text=text)


@pytest.fixture
def review(opened: Callable[..., Review]) -> Review:
    return opened()


@pytest.mark.parametrize(
    ("before", "after"), list(itertools.product(ThreadState, ThreadState)), ids=str
)
def test_every_pair_of_states_moves_or_is_refused(
    review: Review, compliance: Principal, before: ThreadState, after: ThreadState
) -> None:
    thread = begin(compliance, review)
    if before is ThreadState.RESOLVED:
        move(compliance, thread, ThreadState.RESOLVED)
    if after in ALLOWED_TRANSITIONS[before]:
        move(compliance, thread, after)
    else:
        with pytest.raises(WrongState, match=f"is {before.value}; it cannot become {after.value}"):
            move(compliance, thread, after)
    assert ReviewThread.objects.get(pk=thread.pk).state == after


def test_a_reviewers_thread_blocks_and_the_departments_does_not(
    review: Review, compliance: Principal, submitter: Principal
) -> None:
    assert begin(compliance, review).blocking
    assert not begin(compliance, review, blocking=False).blocking
    assert not begin(submitter, review).blocking
    with pytest.raises(NotPermitted, match="cannot block the approval") as caught:
        begin(submitter, review, blocking=True)
    assert caught.value.attempt is not None
    assert ReviewThread.objects.count() == 3


def test_whoever_had_a_part_in_it_blocks_nothing_though_they_are_a_reviewer(
    opened: Callable[..., Review], compliance: Principal
) -> None:
    review = opened(excluded_people=[compliance.person_id])
    assert not begin(compliance, review).blocking
    with pytest.raises(NotPermitted):
        begin(compliance, review, blocking=True)


def test_an_open_thread_that_blocks_keeps_every_approval_from_being_given(
    review: Review, compliance: Principal, risk: Principal
) -> None:
    thread = begin(risk, review)
    assert [each.pk for each in review_standing(review).unresolved] == [thread.pk]
    assert not review_standing(review).complete
    with pytest.raises(WrongState, match=f"thread {thread.pk} is not resolved") as caught:
        decide(compliance, review, "approve")
    assert caught.value.code == "threads_unresolved"
    assert verdict_obstacle_words(compliance, review, "approve") == caught.value.message
    assert verdict_obstacle_words(compliance, review, "request_changes") == ""
    move(risk, thread, ThreadState.RESOLVED)
    decide(compliance, review, "approve")
    # A thread that comes between two approvals waits for the second.
    late = begin(risk, review)
    with pytest.raises(WrongState, match="not resolved"):
        decide(risk, review, "approve")
    move(compliance, late, ThreadState.RESOLVED)
    assert decide(risk, review, "approve").state == ReviewState.APPROVED


def test_many_threads_are_counted_and_what_blocks_nothing_is_left_out(
    review: Review, compliance: Principal, submitter: Principal
) -> None:
    threads = [begin(compliance, review) for _ in range(6)]
    begin(submitter, review)
    begin(compliance, review, blocking=False)
    named = ", ".join(str(thread.pk) for thread in threads[:5])
    assert f"6 threads are not resolved ({named}, …)" in verdict_obstacle_words(
        compliance, review, "approve"
    )


def test_who_answers_for_the_department_resolves_no_thread_of_theirs_that_blocks(
    review: Review, compliance: Principal, risk: Principal, actor: Callable[..., Principal]
) -> None:
    both = actor("Bea", "developer@clinical", "reviewer:model-risk")
    blocks, asks = begin(both, review), begin(both, review, blocking=False)
    decide(compliance, review, "request_changes")
    review_answer(actor=both, review_id=review.pk, digest=review.digest, message="It is so.")
    with pytest.raises(NotPermitted, match="had a part in the subject of review"):
        move(both, blocks, ThreadState.RESOLVED)
    move(both, asks, ThreadState.RESOLVED)
    move(risk, blocks, ThreadState.RESOLVED)


def test_the_department_answers_a_reviewers_thread_and_does_not_resolve_it(
    review: Review, compliance: Principal, risk: Principal, submitter: Principal
) -> None:
    thread = begin(compliance, review)
    thread_reply(actor=submitter, review_id=review.pk, thread_id=thread.pk, text="Done.")
    for state in ThreadState:
        with pytest.raises(NotPermitted, match="did not begin thread") as caught:
            move(submitter, thread, state)
        assert caught.value.code == "reviewers_only"
    move(risk, thread, ThreadState.RESOLVED, "Seen.")
    thread_reply(actor=submitter, review_id=review.pk, thread_id=thread.pk, text="Thanks.")
    found = thread_get(review, thread.pk)
    assert (found.state, found.resolved_by_id) == (ThreadState.RESOLVED, risk.person_id)
    assert [(each.said, each.text) for each in found.comments.all()] == [
        ("comment", "Who?"), ("comment", "Done."), ("resolve", "Seen."), ("comment", "Thanks."),
    ]  # fmt: skip
    own = begin(submitter, review)
    move(submitter, own, ThreadState.RESOLVED)
    move(submitter, own, ThreadState.OPEN)
    assert thread_get(review, own.pk).resolved_at is None


def test_a_thread_is_nobodys_who_may_not_see_the_review(
    review: Review, compliance: Principal, actor: Callable[..., Principal]
) -> None:
    thread, outsider = begin(compliance, review), actor("Otto", "lead@finance")
    calls: list[Callable[[], Any]] = [
        lambda: begin(outsider, review),
        lambda: move(outsider, thread, ThreadState.RESOLVED),
        lambda: draft(outsider, review),
        lambda: thread_reply(
            actor=outsider, review_id=review.pk, thread_id=thread.pk, text="Psst."
        ),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            call()
    with pytest.raises(NotPermitted, match="is not a person"):
        begin(service_principal("controller"), review)


def test_a_thread_of_another_review_is_not_in_this_one(
    opened: Callable[..., Review], compliance: Principal
) -> None:
    from governance.audit.services import Subject

    review, other = opened(), opened(subject=Subject("thing", "8", "thing eight"))
    thread = begin(compliance, other)
    with pytest.raises(NotFound, match=f"no thread {thread.pk} in review {review.pk}"):
        thread_resolve(actor=compliance, review_id=review.pk, thread_id=thread.pk)
    with pytest.raises(NotFound):
        thread_get(review, thread.pk)
    assert not threads_of(review)


def test_in_a_closed_review_nothing_is_said_moved_or_drafted(
    review: Review, compliance: Principal
) -> None:
    thread = begin(compliance, review)
    kept = draft(compliance, review)
    decide(compliance, review, "reject", submit_drafts=False)
    for call in (
        lambda: begin(compliance, review),
        lambda: move(compliance, thread, ThreadState.RESOLVED),
        lambda: draft(compliance, review),
        lambda: draft_edit(
            actor=compliance, review_id=review.pk, draft_id=kept.pk, text="Changed."
        ),
    ):
        with pytest.raises(WrongState, match="cannot take a comment"):
            call()
    draft_discard(actor=compliance, review_id=review.pk, draft_id=kept.pk)
    assert not drafts_of(compliance, review)


@pytest.mark.parametrize(
    "anchor",
    [
        Anchor("place", "x"),
        Anchor("item", ""),
        Anchor("general", "x"),
        Anchor("file", "x" * 301),
        Anchor("file", "a\x00b"),
    ],
    ids=str,
)
def test_a_place_without_the_form_of_one_is_refused(
    review: Review, compliance: Principal, anchor: Anchor
) -> None:
    for call in (begin, draft):
        with pytest.raises(InvalidInput):
            call(compliance, review, anchor=anchor)


def test_words_are_bounded(review: Review, compliance: Principal) -> None:
    for text in ("", " \x00 ", "x" * 4001):
        with pytest.raises(InvalidInput, match="1 to 4000 characters"):
            begin(compliance, review, text)
        with pytest.raises(InvalidInput):
            draft(compliance, review, text)
    thread = begin(compliance, review, "x" * 4000)
    with pytest.raises(InvalidInput):
        move(compliance, thread, ThreadState.RESOLVED, "x" * 4001)


def test_nobody_comments_drafts_or_moves_without_end(
    review: Review, compliance: Principal, risk: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COMMENTS_MAX", 3)
    monkeypatch.setattr(limits, "MOVES_MAX", 2)
    decide(compliance, review, "comment")
    thread = begin(compliance, review)
    draft(compliance, review)
    for call in (
        lambda: begin(compliance, review),
        lambda: draft(compliance, review),
        lambda: decide(compliance, review, "comment"),
        lambda: thread_reply(
            actor=compliance, review_id=review.pk, thread_id=thread.pk, text="More."
        ),
    ):
        with pytest.raises(WrongState, match="3 comments"):
            call()
    for state in (ThreadState.RESOLVED, ThreadState.OPEN):
        move(compliance, thread, state)
    with pytest.raises(WrongState, match="2 times"):
        move(compliance, thread, ThreadState.RESOLVED)
    move(risk, thread, ThreadState.RESOLVED)
    begin(risk, review)


def test_what_is_said_is_in_the_log_and_what_is_drafted_is_not(
    review: Review, compliance: Principal
) -> None:
    before = AuditEvent.objects.count()
    kept = draft(compliance, review, anchor=ITEM)
    draft_edit(actor=compliance, review_id=review.pk, draft_id=kept.pk, text="Rather this.")
    gone = draft(compliance, review)
    draft_discard(actor=compliance, review_id=review.pk, draft_id=gone.pk)
    assert AuditEvent.objects.count() == before
    decide(compliance, review, "comment")
    told = bodies(action="review:comment")
    assert [body["reason"] for body in told] == ["because", "Rather this."]
    thread = ReviewThread.objects.get()
    move(compliance, thread, ThreadState.RESOLVED, "Fine.")
    (resolved,) = bodies(action="review:resolve_thread")
    assert (resolved["reason"], resolved["department"]) == ("Fine.", "clinical")
    for body in (told[-1], resolved):
        facts = {name: body["data"][name] for name in ("thread", "anchor", "digest", "round")}
        assert facts == {
            "thread": thread.pk,
            "anchor": {"kind": "item", "key": "oversight"},
            "digest": review.digest,
            "round": 1,
        }


def test_words_that_name_their_author_stand_in_a_box(review: Review, compliance: Principal) -> None:
    begin(compliance, review, f"{compliance.name} asks: who oversees it?")
    event = AuditEvent.objects.get(action="review:comment")
    assert compliance.name not in bytes(event.canonical).decode()
    (body,) = bodies(action="review:comment")
    assert body["reason"].startswith(compliance.name)


def test_drafts_are_their_authors_alone(
    review: Review, compliance: Principal, risk: Principal
) -> None:
    mine = draft(compliance, review)
    assert list(drafts_of(compliance, review)) == [mine]
    assert not drafts_of(risk, review)
    for call in (
        lambda: draft_edit(actor=risk, review_id=review.pk, draft_id=mine.pk, text="Mine."),
        lambda: draft_discard(actor=risk, review_id=review.pk, draft_id=mine.pk),
    ):
        with pytest.raises(NotFound, match="You have no draft"):
            call()
    decide(risk, review, "comment")
    assert CommentDraft.objects.get().text == "Later."
    assert not ThreadComment.objects.exists()


def test_drafts_go_with_a_request_for_changes_and_block(
    review: Review, compliance: Principal, risk: Principal
) -> None:
    theirs = begin(risk, review)
    draft(compliance, review, "On the whole.")
    draft(compliance, review, "Only a note.", anchor=ITEM, blocking=False)
    answer = draft(compliance, review, "I agree.", thread_id=theirs.pk)
    assert answer.anchor == ITEM
    decide(compliance, review, "request_changes")
    assert not drafts_of(compliance, review)
    said = ThreadComment.objects.exclude(thread=theirs)
    assert [(c.text, c.thread.blocking, c.decision.verdict) for c in said] == [
        ("On the whole.", True, "request_changes"),
        ("Only a note.", False, "request_changes"),
    ]
    assert thread_get(review, theirs.pk).comments.last().text == "I agree."


def test_drafts_stay_when_they_are_not_to_be_submitted_or_the_decision_is_refused(
    review: Review, compliance: Principal
) -> None:
    kept = draft(compliance, review)
    decide(compliance, review, "comment", submit_drafts=False)
    with pytest.raises(WrongState, match="was not taken"):
        decide(compliance, review, "approve", digest=OTHER)
    assert list(drafts_of(compliance, review)) == [kept]
    assert not ReviewThread.objects.exists()


def test_what_goes_with_an_approval_blocks_nothing(
    review: Review, compliance: Principal, risk: Principal
) -> None:
    assert draft(compliance, review).blocking
    decide(compliance, review, "approve")
    assert not ReviewThread.objects.get().blocking
    assert decide(risk, review, "approve").state == ReviewState.APPROVED


def test_what_was_said_of_an_earlier_dossier_keeps_its_digest_and_round(
    review: Review, compliance: Principal, risk: Principal, submitter: Principal
) -> None:
    first = review.digest
    said, kept = begin(compliance, review), draft(compliance, review, "Old.")
    edited = draft(compliance, review, "To be reworded.")
    decide(risk, review, "request_changes")
    review = review_answer(actor=submitter, review_id=review.pk, digest=OTHER, message="Now.")
    draft_edit(actor=compliance, review_id=review.pk, draft_id=edited.pk, text="New.")
    decide(compliance, review, "comment")
    threads = {each.comments.all()[0].text: each for each in threads_of(review)}
    assert not CommentDraft.objects.filter(pk=kept.pk).exists()
    assert (threads["Old."].digest, threads["Old."].round) == (first, 1)
    assert (threads["New."].digest, threads["New."].round) == (OTHER, 2)
    # It blocks in the new round too.
    assert said.pk in {each.pk for each in review_standing(review).unresolved}
    entry = thread_resolve(actor=risk, review_id=review.pk, thread_id=said.pk)
    assert (entry.digest, entry.round) == (OTHER, 2)


def test_a_draft_is_edited_within_what_its_author_may(
    review: Review, compliance: Principal, submitter: Principal
) -> None:
    mine = draft(compliance, review)
    changed = draft_edit(actor=compliance, review_id=review.pk, draft_id=mine.pk, blocking=False)
    assert (changed.text, changed.blocking) == ("Later.", False)
    theirs = draft(submitter, review)
    with pytest.raises(NotPermitted, match="cannot block the approval"):
        draft_edit(actor=submitter, review_id=review.pk, draft_id=theirs.pk, blocking=True)
    thread = begin(compliance, review)
    answer = draft(compliance, review, thread_id=thread.pk)
    edited = draft_edit(actor=compliance, review_id=review.pk, draft_id=answer.pk, blocking=True)
    assert not edited.blocking


def test_a_withdrawn_review_leaves_its_threads_as_they_are(
    review: Review, compliance: Principal, submitter: Principal
) -> None:
    thread = begin(compliance, review)
    review_close(actor=submitter, review_id=review.pk, state="withdrawn", reason="Not needed.")
    assert thread_get(review, thread.pk).state == ThreadState.OPEN


def test_who_is_erased_leaves_no_draft(
    review: Review, compliance: Principal, actor: Callable[..., Principal]
) -> None:
    draft(compliance, review)
    begin(compliance, review)
    Person.objects.filter(pk=compliance.person_id).update(is_active=False)
    assert compliance.person_id is not None
    person_erase(
        actor=actor("Ada", "admin"), person_id=compliance.person_id, reason="Asked for it."
    )
    assert not CommentDraft.objects.exists()
    assert ThreadComment.objects.count() == 1


def test_a_voice_says_beforehand_what_will_be_refused(
    review: Review, compliance: Principal, submitter: Principal, actor: Callable[..., Principal]
) -> None:
    thread = begin(compliance, review)
    auditor = voice_of(actor("Asha", "auditor"), review)
    found: dict[str, DomainError | None] = {
        "reviewer": voice_of(compliance, review).resolving(thread),
        "submitter": voice_of(submitter, review).resolving(thread),
    }
    assert found["reviewer"] is None
    assert found["submitter"] is not None
    assert auditor.resolving(thread) is not None
    assert auditor.blocking() is not None
