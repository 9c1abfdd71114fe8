"""PostgreSQL's own refusals, without the services."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from governance.errors import DomainError
from governance.people.models import Department, Person
from governance.principals import Principal
from governance.reviews.models import Decision, Review, ReviewState
from governance.reviews.services import review_decide
from tests.proofs import vote_proof


@pytest.fixture
def review(submitter: Principal, department: Callable[[str], Department]) -> Review:
    """A review that excludes nobody by name, which no service would open."""
    assert submitter.person_id is not None
    return Review.objects.create(
        subject_type="thing",
        subject_id="7",
        subject_name="thing seven",
        department=department("clinical"),
        digest="a" * 64,
        required_approvals={"compliance": 1, "model-risk": 1},
        policy_version=1,
        opened_by_id=submitter.person_id,
        due_at=timezone.now(),
    )


@pytest.fixture
def cast(compliance: Principal, review: Review) -> Callable[..., Decision]:
    """Writes a decision by the ORM alone: compliance's approval, changed as asked."""

    def write(**changes: Any) -> Decision:
        row: dict[str, Any] = {
            "review": review,
            "submitter_id": review.opened_by_id,
            "person_id": compliance.person_id,
            "verdict": "approve",
            "specialty": "compliance",
            "reason": "r",
            "digest": review.digest,
            "round": review.round,
            **vote_proof(),
        }
        with transaction.atomic():
            decision = Decision.objects.create(**(row | changes))
            # Deferred foreign keys are checked here, not at the end of the test.
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            return decision

    return write


def test_the_database_takes_a_proper_vote_and_refuses_a_second(
    cast: Callable[..., Decision],
) -> None:
    cast()
    with pytest.raises(IntegrityError, match="one_vote_per_person_and_round"):
        cast(verdict="reject")
    cast(verdict="comment", specialty="")


def test_the_database_refuses_self_approval(
    cast: Callable[..., Decision], submitter: Principal
) -> None:
    with pytest.raises(IntegrityError, match="submitter_never_decides"):
        cast(person_id=submitter.person_id)
    cast(person_id=submitter.person_id, verdict="comment", specialty="")


def test_the_database_refuses_self_approval_under_a_false_submitter(
    cast: Callable[..., Decision], submitter: Principal, person: Callable[..., Person]
) -> None:
    mallory = person("Mallory")
    for voter in (submitter.person_id, mallory.pk):
        with pytest.raises(IntegrityError, match="decision_repeats_its_submitter"):
            cast(person_id=voter, submitter_id=person(f"Other than {voter}").pk)


def test_the_database_refuses_an_excluded_persons_vote(
    cast: Callable[..., Decision], compliance: Principal
) -> None:
    Review.objects.update(excluded_people=[compliance.person_id])
    with pytest.raises(IntegrityError, match="excluded from deciding"):
        cast()
    cast(verdict="comment", specialty="")


@pytest.mark.parametrize("changes", [{"digest": "c" * 64}, {"round": 2}])
def test_the_database_refuses_a_vote_on_something_else(
    cast: Callable[..., Decision], changes: dict[str, Any]
) -> None:
    with pytest.raises(IntegrityError, match="current round and digest"):
        cast(**changes)


def test_a_decision_stands(cast: Callable[..., Decision]) -> None:
    decision = cast()
    rows = Decision.objects.filter(pk=decision.pk)
    with pytest.raises(IntegrityError, match="is permanent: UPDATE"), transaction.atomic():
        rows.update(verdict="reject")
    with pytest.raises(IntegrityError, match="is permanent: DELETE"), transaction.atomic():
        rows.delete()
    assert rows.get().verdict == "approve"


def test_a_reviews_terms_only_get_stricter(
    cast: Callable[..., Decision], compliance: Principal
) -> None:
    reviews = Review.objects.all()
    reviews.update(excluded_people=[1])
    for change in (
        {"excluded_people": [2]},
        {"required_approvals": {"compliance": 1}},
        {"opened_by_id": compliance.person_id},
        {"policy_version": 2},
    ):
        with pytest.raises(IntegrityError, match="keeps its submitter"), transaction.atomic():
            reviews.update(**change)


def _at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run each in a thread of its own, from one start; results or errors, in order."""
    start = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            start.wait()
            results[index] = call()
        except DomainError as error:
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _vote(actor: Principal, review: Review, verdict: str) -> Callable[[], Review]:
    return lambda: review_decide(
        actor=actor, review_id=review.pk, verdict=verdict, reason="r", digest=review.digest
    )


@pytest.mark.django_db(transaction=True)
def test_two_reviewers_at_once_both_count(
    opened: Callable[..., Review], compliance: Principal, risk: Principal
) -> None:
    review = opened()
    results = _at_once(_vote(compliance, review, "approve"), _vote(risk, review, "approve"))
    assert {result.state for result in results} == {ReviewState.OPEN, ReviewState.APPROVED}
    review.refresh_from_db()
    assert review.state == ReviewState.APPROVED
    assert review.decisions.count() == 2


@pytest.mark.django_db(transaction=True)
def test_an_approval_and_a_rejection_at_once_never_both_end_it(
    opened: Callable[..., Review], compliance: Principal, risk: Principal
) -> None:
    review = opened(required_approvals={"compliance": 1})
    results = _at_once(_vote(compliance, review, "approve"), _vote(risk, review, "reject"))
    refused = [result for result in results if isinstance(result, DomainError)]
    assert [error.status for error in refused] == [409]
    review.refresh_from_db()
    assert review.decisions.count() == 1
    expected = {"approve": ReviewState.APPROVED, "reject": ReviewState.REJECTED}
    assert review.state == expected[review.decisions.get().verdict]


@pytest.mark.django_db(transaction=True)
def test_the_same_vote_twice_at_once_counts_once(
    opened: Callable[..., Review], compliance: Principal
) -> None:
    review = opened(required_approvals={"compliance": 2})
    results = _at_once(*[_vote(compliance, review, "approve") for _ in range(4)])
    assert sum(isinstance(result, DomainError) for result in results) == 3
    assert review.decisions.count() == 1
    assert Review.objects.get().state == ReviewState.OPEN
