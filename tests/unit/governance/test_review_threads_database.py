"""PostgreSQL's constraints on threads, without the services; and resolving against approving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from governance import rowsecurity
from governance.errors import DomainError, WrongState
from governance.principals import Principal
from governance.reviews.models import Review, ReviewState
from governance.reviews.services import review_decide
from governance.reviews.threads.drafts import draft_add
from governance.reviews.threads.models import Anchor, CommentDraft, ReviewThread, ThreadComment
from governance.reviews.threads.services import thread_open, thread_reopen, thread_resolve
from tests.unit.registry.test_recall_races import one_after_another

pytestmark = pytest.mark.sweep


def write(review: Review, person: Principal, **changes: Any) -> ReviewThread:
    """A thread by the ORM alone."""
    row: dict[str, Any] = {
        "review": review,
        "anchor_kind": "general",
        "digest": review.digest,
        "round": review.round,
        "blocking": True,
        "opened_by_id": person.person_id,
    }
    with transaction.atomic():
        return ReviewThread.objects.create(**(row | changes))


@pytest.fixture
def review(opened: Callable[..., Review]) -> Review:
    return opened()


def approve(actor: Principal, review: Review) -> Review:
    return review_decide(
        actor=actor, review_id=review.pk, verdict="approve", reason="r", digest=review.digest
    )


def test_no_review_is_approved_over_an_open_thread_that_blocks(
    review: Review, compliance: Principal
) -> None:
    write(review, compliance)
    rows = Review.objects.filter(pk=review.pk)
    with (
        pytest.raises(IntegrityError, match="open threads that block its approval"),
        transaction.atomic(),
    ):
        rows.update(state="approved")
    assert rows.update(state="rejected") == 1


def test_no_thread_is_opened_or_reopened_in_a_closed_review(
    review: Review, compliance: Principal
) -> None:
    thread = write(review, compliance)
    thread_resolve(actor=compliance, review_id=review.pk, thread_id=thread.pk)
    Review.objects.filter(pk=review.pk).update(state="approved")
    with pytest.raises(IntegrityError, match="no thread is opened in it"):
        write(review, compliance, blocking=False)
    with pytest.raises(IntegrityError, match="no thread is opened in it"), transaction.atomic():
        ReviewThread.objects.update(state="open", resolved_by=None, resolved_at=None)


def test_whoever_had_a_part_in_it_blocks_nothing(
    opened: Callable[..., Review], submitter: Principal, compliance: Principal
) -> None:
    review = opened(excluded_people=[compliance.person_id])
    for person in (submitter, compliance):
        with pytest.raises(IntegrityError, match="may not block it"):
            write(review, person)
        write(review, person, blocking=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"blocking": False},
        {"anchor_key": "x", "anchor_kind": "file"},
        {"digest": "b" * 64},
        {"round": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_thread_stands_but_for_its_state(
    review: Review, compliance: Principal, changes: dict[str, Any]
) -> None:
    write(review, compliance)
    with pytest.raises(IntegrityError, match="is permanent: UPDATE"), transaction.atomic():
        ReviewThread.objects.update(**changes)


def test_a_thread_is_not_deleted_and_what_was_said_neither_changes_nor_goes(
    review: Review, compliance: Principal
) -> None:
    entry = thread_open(actor=compliance, review_id=review.pk, anchor=Anchor(), text="Why?")
    rows = ThreadComment.objects.filter(pk=entry.pk)
    attacks: list[Callable[[], Any]] = [
        lambda: rows.update(text="Nothing."),
        lambda: rows._raw_delete(rows.db),  # type: ignore[attr-defined]
        lambda: ReviewThread.objects.all()._raw_delete(rows.db),  # type: ignore[attr-defined]
        lambda: connection.cursor().execute(
            "TRUNCATE governance_threadcomment, governance_mention"
        ),
    ]
    connection.cursor().execute("SET CONSTRAINTS ALL IMMEDIATE")
    for attack in attacks:
        with pytest.raises(DatabaseError, match=r"refused|append-only"), transaction.atomic():
            attack()
    assert rows.get().text == "Why?"


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"state": "resolved"}, "resolved_thread_says_by_whom"),
        ({"anchor_key": "x"}, "thread_is_somewhere"),
        ({"anchor_kind": "item"}, "thread_is_somewhere"),
    ],
)
def test_what_makes_no_sense_is_no_row(
    review: Review, compliance: Principal, changes: dict[str, Any], constraint: str
) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        write(review, compliance, **changes)


def test_an_answer_in_a_draft_blocks_nothing_and_a_comment_has_words(
    review: Review, compliance: Principal
) -> None:
    thread = write(review, compliance)
    on = {"digest": review.digest, "round": 1, "person_id": compliance.person_id}
    with pytest.raises(IntegrityError, match="answer_blocks_nothing"), transaction.atomic():
        CommentDraft.objects.create(
            review=review, thread=thread, anchor_kind="general", text="t", blocking=True, **on
        )
    with pytest.raises(IntegrityError, match="comment_has_words"), transaction.atomic():
        ThreadComment.objects.create(thread=thread, **on)


def test_a_query_that_forgets_whose_a_draft_is_finds_ones_own(
    review: Review, submitter: Principal, actor: Callable[..., Principal]
) -> None:
    draft_add(actor=submitter, review_id=review.pk, text="Later.")
    thread_open(actor=submitter, review_id=review.pk, anchor=Anchor(), text="Now.")
    for who, drafts in ((submitter, 1), (actor("Vera", "viewer@clinical"), 0)):
        with rowsecurity.scope(who):
            assert (CommentDraft.objects.count(), ThreadComment.objects.count()) == (drafts, 1)
    with rowsecurity.scope(actor("Otto", "lead@finance")):
        assert not ReviewThread.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestTwoAtOnce:
    """Approval never passes with an open thread that blocks, whoever comes first."""

    @pytest.fixture
    def half(self, review: Review, compliance: Principal) -> Review:
        """One approval is missing."""
        return approve(compliance, review)

    def outcome(self, half: Review) -> tuple[str, int]:
        review = Review.objects.get(pk=half.pk)
        return review.state, review.threads.filter(state="open", blocking=True).count()

    def opening(self, actor: Principal, half: Review) -> Callable[[], Any]:
        return lambda: thread_open(
            actor=actor, review_id=half.pk, anchor=Anchor("file", "w.bin"), text="Whose?"
        )

    def test_a_thread_then_the_approval(
        self, half: Review, compliance: Principal, risk: Principal
    ) -> None:
        _, refused = one_after_another(self.opening(compliance, half), lambda: approve(risk, half))
        assert isinstance(refused, WrongState)
        assert refused.code == "threads_unresolved"
        assert self.outcome(half) == (ReviewState.OPEN, 1)

    def test_the_approval_then_a_thread(
        self, half: Review, compliance: Principal, risk: Principal
    ) -> None:
        approved, refused = one_after_another(
            lambda: approve(risk, half), self.opening(compliance, half)
        )
        assert approved.state == ReviewState.APPROVED
        assert isinstance(refused, WrongState)
        assert self.outcome(half) == (ReviewState.APPROVED, 0)

    def test_a_thread_is_resolved_then_the_approval(
        self, half: Review, compliance: Principal, risk: Principal
    ) -> None:
        thread = self.opening(compliance, half)().thread
        on = {"review_id": half.pk, "thread_id": thread.pk}
        _, approved = one_after_another(
            lambda: thread_resolve(actor=compliance, **on), lambda: approve(risk, half)
        )
        assert not isinstance(approved, DomainError)
        assert self.outcome(half) == (ReviewState.APPROVED, 0)

    def test_a_thread_is_reopened_then_the_approval(
        self, half: Review, compliance: Principal, risk: Principal
    ) -> None:
        thread = self.opening(compliance, half)().thread
        on = {"review_id": half.pk, "thread_id": thread.pk}
        thread_resolve(actor=compliance, **on)
        _, refused = one_after_another(
            lambda: thread_reopen(actor=compliance, **on), lambda: approve(risk, half)
        )
        assert isinstance(refused, WrongState)
        assert self.outcome(half) == (ReviewState.OPEN, 1)

    def test_past_the_services_the_second_waits_for_the_first_too(
        self, half: Review, compliance: Principal
    ) -> None:
        def approved() -> int:
            try:
                with transaction.atomic():
                    return Review.objects.filter(pk=half.pk).update(state="approved")
            except IntegrityError as error:
                raise WrongState(str(error)) from error

        _, refused = one_after_another(lambda: write(half, compliance), approved)
        assert isinstance(refused, WrongState)
        assert self.outcome(half) == (ReviewState.OPEN, 1)
