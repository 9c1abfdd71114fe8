"""Assigning a review: to people who could decide on it, by people whom the policy lets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from governance.errors import DomainError, InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Person, RoleAssignment
from governance.people.selectors import principal_for_person, principals_of
from governance.principals import Principal
from governance.reviews.absences.services import absence_set
from governance.reviews.assignments import services
from governance.reviews.assignments.models import ReviewAssignment
from governance.reviews.assignments.selectors import assignable_people, assignees_by_review
from governance.reviews.assignments.services import review_assign, review_unassign
from governance.reviews.inbox import reviews_assigned
from governance.reviews.models import Review
from governance.reviews.reminders.models import ReviewReminder
from governance.reviews.services import review_answer, review_close, review_decide
from tests.unit.audit_support import bodies

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

Make = Callable[..., Principal]


@pytest.fixture
def review(opened: Callable[..., Review]) -> Review:
    return opened()


def assign(actor: Principal, review: Review, to: Principal) -> ReviewAssignment:
    assert to.person_id is not None
    return review_assign(actor=actor, review_id=review.pk, person_id=to.person_id)


def names(review: Review) -> list[str]:
    return [person.name for person in assignees_by_review([review])[review.pk]]


def refused(call: Callable[[], Any]) -> DomainError:
    with pytest.raises(DomainError) as caught:
        call()
    return caught.value


def test_a_reviewer_takes_a_review_and_others_assign_it(
    review: Review, compliance: Principal, risk: Principal, actor: Make
) -> None:
    assign(compliance, review, compliance)
    assign(actor("Ada", "admin"), review, risk)
    assert names(review) == ["Cora", "Rolf"]
    assert list(reviews_assigned(compliance)) == [review]
    review_unassign(actor=risk, review_id=review.pk, person_id=compliance.person_id)
    assert names(review) == ["Rolf"]
    assert [
        (body["action"], body["data"]["person"]) for body in bodies(action="review:assign")
    ] == [
        ("review:assign", compliance.person_id),
        ("review:assign", risk.person_id),
    ]
    (gone,) = bodies(action="review:unassign")
    assert gone["data"]["person"] == compliance.person_id


def test_assigning_changes_nothing_of_who_may_decide(
    review: Review, compliance: Principal, risk: Principal, submitter: Principal
) -> None:
    assign(compliance, review, compliance)
    # Rolf is not assigned and votes; Dora assigns and may not.
    review_decide(
        actor=risk, review_id=review.pk, verdict="approve", reason="ok", digest=review.digest
    )
    with pytest.raises(NotPermitted, match="Separation of duties"):
        review_decide(
            actor=submitter,
            review_id=review.pk,
            verdict="approve",
            reason="ok",
            digest=review.digest,
        )


def test_only_people_who_could_decide_are_assigned_and_the_refusal_says_why(
    opened: Callable[..., Review], compliance: Principal, submitter: Principal, actor: Make
) -> None:
    part = actor("Pia", "reviewer:compliance")
    review = opened(excluded_people=[part.person_id])
    admin = actor("Ada", "admin")
    left = actor("Lea", "reviewer:compliance")
    Person.objects.filter(pk=left.person_id).update(is_active=False)
    for who, why in (
        (submitter, "Dora submitted the subject of the review"),
        (part, "Pia had a part in the subject of the review"),
        (left, "The account of Lea is not active"),
        (actor("Priya", "reviewer:privacy"), "Priya does not review for compliance or model-risk"),
        (admin, "Ada does not review for compliance or model-risk"),
    ):
        error = refused(lambda who=who: assign(admin, review, who))
        assert isinstance(error, InvalidInput)
        assert why in error.message
        assert f"review {review.pk}" in error.message
    assert not ReviewAssignment.objects.exists()


def test_the_department_assigns_whom_it_knows_and_learns_no_other_name(
    review: Review, compliance: Principal, risk: Principal, submitter: Principal
) -> None:
    assert assignable_people(submitter, review) == []
    error = refused(lambda: assign(submitter, review, compliance))
    assert isinstance(error, NotFound)
    assert "Cora" not in error.message
    # A person who has commented in the review is named.
    review_decide(
        actor=compliance, review_id=review.pk, verdict="comment", reason="Hm.", digest=review.digest
    )
    assert [person.name for person in assignable_people(submitter, review)] == ["Cora"]
    assign(submitter, review, compliance)
    assert refused(lambda: assign(submitter, review, risk)).status == 404


def test_the_policy_says_who_assigns(review: Review, compliance: Principal, actor: Make) -> None:
    def take_back(who: Principal) -> None:
        review_unassign(actor=who, review_id=review.pk, person_id=compliance.person_id)

    for who, kind in (
        (actor("Vic", "viewer@clinical"), NotPermitted),
        (actor("Odo", "auditor"), NotPermitted),
        (actor("Fay", "lead@finance"), NotFound),
    ):
        assert isinstance(refused(lambda who=who: assign(who, review, compliance)), kind)
        assert isinstance(refused(lambda who=who: take_back(who)), kind)


def test_a_deputy_is_assigned_while_they_stand_in(
    review: Review, compliance: Principal, actor: Make
) -> None:
    priya, now = actor("Priya", "reviewer:privacy"), timezone.now()
    absence_set(
        actor=compliance,
        deputy=Person.objects.get(pk=priya.person_id),
        specialty="compliance",
        starts_at=now - timedelta(hours=1),
        ends_at=now + timedelta(days=3),
    )
    assign(priya, review, priya)
    assert names(review) == ["Priya"]


def test_an_assignment_ends_when_they_could_not_decide_any_more(
    review: Review, compliance: Principal, risk: Principal, submitter: Principal
) -> None:
    assign(compliance, review, compliance)
    assign(risk, review, risk)
    review_decide(
        actor=risk, review_id=review.pk, verdict="request_changes", reason="?", digest=review.digest
    )
    review_answer(
        actor=submitter,
        review_id=review.pk,
        digest="b" * 64,
        message="Cora helped.",
        excluded_people=[compliance.person_id],
    )
    review.refresh_from_db()
    RoleAssignment.objects.filter(person_id=risk.person_id).delete()
    assert names(review) == []
    assert not reviews_assigned(compliance).exists()


def test_a_closed_review_and_a_second_or_eleventh_assignee_are_refused(
    review: Review,
    compliance: Principal,
    risk: Principal,
    submitter: Principal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assign(compliance, review, compliance)
    assert "assigned to Cora already" in refused(lambda: assign(risk, review, compliance)).message
    monkeypatch.setattr(services, "ASSIGNEES_MAX", 1)
    assert "no more are possible" in refused(lambda: assign(risk, review, risk)).message
    review_close(actor=submitter, review_id=review.pk, state="withdrawn", reason="Later.")
    error = refused(lambda: assign(risk, review, risk))
    assert isinstance(error, WrongState)
    assert "withdrawn; it cannot be assigned" in error.message
    gone = refused(lambda: review_unassign(actor=risk, review_id=review.pk, person_id=999))
    assert gone.status == 404


def test_the_assignee_is_told_and_who_takes_it_is_not(
    review: Review, compliance: Principal, risk: Principal
) -> None:
    assign(compliance, review, compliance)
    assert not ReviewReminder.objects.exists()
    assign(compliance, review, risk)
    (told,) = ReviewReminder.objects.all()
    assert (told.kind, told.people) == ("assigned", [risk.person_id])
    # Whoever takes it back and assigns it again sends no second mail.
    review_unassign(actor=compliance, review_id=review.pk, person_id=risk.person_id)
    assign(compliance, review, risk)
    assert ReviewReminder.objects.count() == 1


def test_what_was_voted_on_is_assigned_and_no_task(review: Review, compliance: Principal) -> None:
    assign(compliance, review, compliance)
    review_decide(
        actor=compliance, review_id=review.pk, verdict="approve", reason="ok", digest=review.digest
    )
    assert names(review) == ["Cora"]
    assert not reviews_assigned(compliance).exists()


def test_candidates_cost_a_bounded_number_of_queries(
    review: Review, actor: Make, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    admin = actor("Ada", "admin")
    for number in range(12):
        actor(f"Reviewer {number:02}", "reviewer:compliance")
    with django_assert_num_queries(5):
        assert len(assignable_people(admin, review)) == 12
    with django_assert_num_queries(1):
        assignees_by_review([review])


def test_many_principals_are_the_same_as_one_by_one(actor: Make) -> None:
    for number, role in enumerate(("admin", "reviewer:privacy", "lead@finance")):
        actor(f"Person {number}", role)
    Person.objects.filter(name="Person 0").update(is_active=False)
    people = list(Person.objects.order_by("pk"))
    assert principals_of(people) == [principal_for_person(person) for person in people]
