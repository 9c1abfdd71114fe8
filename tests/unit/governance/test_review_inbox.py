"""The inbox: what waits for whom, narrowed and counted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from governance.audit.services import Subject
from governance.people.models import Department, Person, Specialty
from governance.principals import Principal
from governance.reviews.absences.services import absence_set
from governance.reviews.inbox import (
    ReviewFilter,
    inbox_counts,
    missing_for,
    missing_specialties,
    reviews_awaiting,
)
from governance.reviews.models import Review, ReviewState
from governance.reviews.selectors import reviews_visible_to
from governance.reviews.services import review_decide

pytestmark = pytest.mark.sweep

Open = Callable[..., Review]


@pytest.fixture
def another(opened: Open) -> Open:
    """Opens a review of a thing by its number, due in so many days."""

    def make(thing: int, days: float = 10, **changes: Any) -> Review:
        return opened(
            subject=Subject("thing", str(thing), f"thing {thing}"),
            due_at=timezone.now() + timedelta(days=days),
            **changes,
        )

    return make


def approve(actor: Principal, review: Review) -> None:
    review_decide(
        actor=actor, review_id=review.pk, verdict="approve", reason="ok", digest=review.digest
    )


def ids(actor: Principal) -> list[int]:
    return [review.pk for review in reviews_awaiting(actor)]


def test_what_waits_for_me_is_what_still_lacks_my_specialty_soonest_due_first(
    another: Open, compliance: Principal, risk: Principal, actor: Callable[..., Principal]
) -> None:
    later, sooner = another(1, 9), another(2, 1)
    assert ids(compliance) == ids(risk) == [sooner.pk, later.pk]
    approve(compliance, sooner)
    # It is compliance's no longer; another compliance reviewer has nothing to do there either.
    assert ids(compliance) == ids(actor("Cleo", "reviewer:compliance")) == [later.pk]
    assert ids(risk) == [sooner.pk, later.pk]
    assert ids(actor("Priya", "reviewer:privacy")) == []
    assert ids(actor("Ada", "admin")) == []


def test_a_quorum_of_two_waits_for_the_second_and_not_for_the_first_again(
    another: Open, compliance: Principal, actor: Callable[..., Principal]
) -> None:
    review = another(1, required_approvals={"compliance": 2})
    approve(compliance, review)
    assert ids(compliance) == []
    assert ids(actor("Cleo", "reviewer:compliance")) == [review.pk]


def test_who_had_a_part_in_it_has_nothing_waiting(another: Open, compliance: Principal) -> None:
    another(1, excluded_people=[compliance.person_id])
    assert ids(compliance) == []


def test_a_deputy_finds_what_waits_for_whom_they_stand_in(
    another: Open, compliance: Principal, actor: Callable[..., Principal], submitter: Principal
) -> None:
    priya = actor("Priya", "reviewer:privacy")
    review, theirs = another(1), another(2, excluded_people=[compliance.person_id])
    now = timezone.now()
    absence_set(
        actor=compliance,
        deputy=Person.objects.get(pk=priya.person_id),
        specialty="compliance",
        starts_at=now - timedelta(hours=1),
        ends_at=now + timedelta(days=3),
    )
    assert ids(priya) == [review.pk]
    assert theirs.pk not in ids(priya)
    approve(priya, review)
    assert ids(priya) == ids(compliance) == []


def test_filters_narrow_and_counts_follow(
    another: Open, compliance: Principal, risk: Principal
) -> None:
    overdue, soon, far = another(1, -1), another(2, 3), another(3, 20, tier="high")
    closed = another(4, 1)
    review_decide(
        actor=risk, review_id=closed.pk, verdict="reject", reason="no", digest=closed.digest
    )
    approve(risk, soon)

    def found(**asked: str) -> set[int]:
        rows = ReviewFilter.lenient(asked).applied_for(compliance, reviews_visible_to(compliance))
        return set(rows.values_list("pk", flat=True))

    assert found() == {overdue.pk, soon.pk, far.pk, closed.pk}
    assert found(due="overdue") == {overdue.pk}
    assert found(due="week") == {soon.pk}
    assert found(tier="high") == {far.pk}
    assert found(missing="model-risk") == {overdue.pk, far.pk}
    assert found(missing="compliance") == {overdue.pk, soon.pk, far.pk}
    assert found(missing="security") == set()
    assert found(state="rejected") == {closed.pk}
    assert found(department="clinical") == {overdue.pk, soon.pk, far.pk, closed.pk}
    assert found(department="finance") == set()
    counts = inbox_counts(compliance, ReviewFilter())
    assert (counts.mine, counts.waiting, counts.overdue, counts.closed) == (3, 3, 1, 1)
    counts = inbox_counts(compliance, ReviewFilter(tier="high"))
    assert (counts.mine, counts.waiting, counts.overdue, counts.closed) == (1, 1, 0, 0)


def test_votes_of_an_earlier_round_or_digest_do_not_count(
    another: Open, compliance: Principal
) -> None:
    review = another(1)
    approve(compliance, review)
    Review.objects.filter(pk=review.pk).update(round=2)
    assert ids(compliance) == [review.pk]
    assert missing_specialties(Review.objects.all()) == {review.pk: ["compliance", "model-risk"]}
    assert Review.objects.filter(missing_for("compliance")).exists()


def test_another_departments_reviews_are_neither_listed_nor_counted(
    another: Open, actor: Callable[..., Principal], department: Callable[[str], Department]
) -> None:
    another(1, -1)
    lead = actor("Fay", "lead@finance")
    counts = inbox_counts(lead, ReviewFilter())
    assert (counts.mine, counts.waiting, counts.overdue, counts.closed) == (0, 0, 0, 0)


def test_the_number_of_queries_does_not_grow(
    another: Open,
    compliance: Principal,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    for thing in range(8):
        another(thing)
    with django_assert_num_queries(5):
        inbox_counts(compliance, ReviewFilter(missing=Specialty.COMPLIANCE))
    with django_assert_num_queries(4):
        missing_specialties(reviews_awaiting(compliance))


def test_what_is_due_is_found_by_an_index(another: Open) -> None:
    """Among many closed reviews the few that wait are not looked for one by one."""
    first = another(0)
    rows = [
        Review(
            subject_type="thing",
            subject_id=str(number),
            subject_name="x",
            department=first.department,
            digest=first.digest,
            required_approvals=first.required_approvals,
            policy_version=1,
            opened_by=first.opened_by,
            due_at=first.due_at,
            state=ReviewState.REJECTED,
        )
        for number in range(1, 3000)
    ]
    Review.objects.bulk_create(rows)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE governance_review")
    waiting = Review.objects.filter(state__in=("open", "changes_requested")).order_by("due_at")
    assert "waiting_reviews_by_due_time" in waiting[:25].explain()
