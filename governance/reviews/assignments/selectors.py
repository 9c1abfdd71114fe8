"""Assignments of a review: current assignees and eligible reviewers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from governance.errors import InvalidInput, NotFound
from governance.people.models import Person, Role, RoleAssignment
from governance.people.selectors import people_visible_to, principals_of
from governance.permissions import Action
from governance.policy.context import probing_context
from governance.policy.engine import decide
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.reviews.absences.models import Absence
from governance.reviews.assignments.models import ReviewAssignment
from governance.reviews.models import Review
from governance.reviews.selectors import review_resource

# Most people in a list to choose from.
CANDIDATES_MAX = 200


def assignments_in_force() -> QuerySet[ReviewAssignment]:
    """Return assignments of active reviewers who have had no part in the subject since."""
    part = Review.objects.filter(
        pk=OuterRef("review"), excluded_people__contains=[OuterRef("person_id")]
    )
    reviewer = RoleAssignment.objects.filter(person=OuterRef("person"), role=Role.REVIEWER)
    return ReviewAssignment.objects.filter(~Exists(part), Exists(reviewer), person__is_active=True)


def assigned_to(person_id: int) -> Exists:
    """Match reviews that are assigned to this person."""
    return Exists(assignments_in_force().filter(review=OuterRef("pk"), person_id=person_id))


def assignees_by_review(reviews: Iterable[Review]) -> Mapping[int, list[Person]]:
    """Return each review's assignees, with one query."""
    assignees: dict[int, list[Person]] = defaultdict(list)
    rows = assignments_in_force().filter(review__in=[review.pk for review in reviews])
    for row in rows.select_related("person"):
        assignees[row.review_id].append(row.person)
    return assignees


def assignable_people(actor: Principal, review: Review) -> list[Person]:
    """Return the people to whom `actor` may assign the review, by name: they could decide on it,
    and `actor` may see them or their name in the review.
    """
    rows = review_people_visible_to(actor, review).filter(_reviewer(), is_active=True)
    people = list(rows.order_by("name", "pk")[:CANDIDATES_MAX])
    refusals = _refusals(people, review)
    return [person for person in people if not refusals[person.pk]]


def assignee_get(actor: Principal, review: Review, person_id: int) -> Person:
    """Return the person, if the review may be assigned to them.

    Raises:
        NotFound: the person does not exist, or `actor` may not know of them.
        InvalidInput: the person could not decide on the review, with the reason.
    """
    person = review_people_visible_to(actor, review).filter(pk=person_id).first()
    if person is None:
        raise NotFound(f"There is no person {person_id} to whom you may assign a review.")
    refusal = _refusals([person], review)[person.pk]
    if refusal:
        raise InvalidInput(
            f"{refusal}; review {review.pk} of {review.subject_name} cannot be assigned to them.",
            hint="Assign it to someone who could decide on it.",
            fields={"person": ["could not decide on this review"]},
        )
    return person


def review_people_visible_to(actor: Principal, review: Review) -> QuerySet[Person]:
    """Return people whom `actor` may see, and people whose names appear in the review."""
    named = Q(pk=review.opened_by_id) | Q(pk__in=review.decisions.order_by().values("person"))
    named |= Q(pk__in=review.threads.order_by().values("comments__person"))
    named |= Q(pk__in=review.assignments.order_by().values("person"))
    visible = Q(pk__in=people_visible_to(actor).order_by().values("pk"))
    return Person.objects.filter(visible | named | Q(pk=actor.person_id))


def _reviewer() -> Exists:
    return Exists(RoleAssignment.objects.filter(person=OuterRef("pk"), role=Role.REVIEWER))


def _refusals(people: list[Person], review: Review) -> dict[int, str]:
    """Return the reason that each person cannot decide on the review; empty if they can."""
    required = set(review.required_approvals)
    deputy_specialties = _deputy_specialties(review, required)
    policy, resource, context = active_policy(), review_resource(review), probing_context()
    reasons = {}
    for person, principal in zip(people, principals_of(people), strict=True):
        specialties = principal.specialties | deputy_specialties[person.pk]
        actions = (Action.RELEASE_VIEW, Action.RELEASE_DECIDE)
        if person.pk == review.opened_by_id:
            why = f"{person.name} submitted the subject of the review"
        elif person.pk in review.excluded_people:
            why = f"{person.name} had a part in the subject of the review"
        elif not person.is_active:
            why = f"The account of {person.name} is not active"
        elif not specialties & required:
            why = f"{person.name} does not review for {' or '.join(sorted(required))}"
        elif not all(decide(policy, principal, a, resource, context).allowed for a in actions):
            why = f"The policy does not let {person.name} decide on it"
        else:
            why = ""
        reasons[person.pk] = why
    return reasons


def _deputy_specialties(review: Review, required: set[str]) -> dict[int, set[str]]:
    """Return by deputy the specialties that they stand in for now, as in `stands_in_for`."""
    now = timezone.now()
    roles = RoleAssignment.objects.filter(
        person=OuterRef("person"), role=Role.REVIEWER, specialty=OuterRef("specialty")
    )
    away = Absence.objects.filter(
        Exists(roles),
        specialty__in=required,
        person__is_active=True,
        starts_at__lte=now,
        ends_at__gt=now,
        ended_at__isnull=True,
    ).exclude(person__in=review.excluded_people)
    specialties: dict[int, set[str]] = defaultdict(set)
    for deputy, specialty in away.order_by().values_list("deputy_id", "specialty"):
        specialties[deputy].add(specialty)
    return specialties
