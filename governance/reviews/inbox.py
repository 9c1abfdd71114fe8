"""The reviewer's inbox: reviews that wait for the actor, with filters and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from django.db.models import (
    Count,
    Exists,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
)
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Coalesce
from django.db.models.lookups import GreaterThan
from django.utils import timezone
from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, TIER_MAX
from governance.people.models import Specialty
from governance.principals import Principal
from governance.reviews.absences.selectors import deputyships
from governance.reviews.assignments.selectors import assigned_to
from governance.reviews.models import Decision, Review, ReviewState, Verdict
from governance.reviews.selectors import reviews_visible_to
from governance.schemas import Filter, Slug

WAITING = (ReviewState.OPEN, ReviewState.CHANGES_REQUESTED)
SOON = timedelta(days=7)


def missing_for(specialty: str) -> Q:
    """Match reviews whose present round still lacks an approval for `specialty`.

    Raises:
        ValueError: the specialty does not exist.
    """
    name = Specialty(specialty).value
    approvals = (
        Decision.objects.filter(
            review=OuterRef("pk"),
            verdict=Verdict.APPROVE,
            specialty=name,
            round=OuterRef("round"),
            digest=OuterRef("digest"),
        )
        .order_by()
        .values("review")
        .annotate(count=Count("pk"))
        .values("count")
    )
    needed = Cast(KT(f"required_approvals__{name}"), IntegerField())
    return Q(required_approvals__has_key=name) & Q(
        GreaterThan(needed, Coalesce(Subquery(approvals, output_field=IntegerField()), Value(0)))
    )


def reviews_awaiting(actor: Principal) -> QuerySet[Review]:
    """Return open reviews that lack an approval that the actor may give, for their own specialty or
    as the deputy of an absent reviewer; soonest due first.
    """
    if actor.person_id is None or not actor.specialties:
        return Review.objects.none()
    missing = Q(pk__in=())
    for specialty in sorted(actor.specialties & set(Specialty.values)):
        missing |= missing_for(specialty)
    # Nearly always none; composing their conditions takes longer than this query.
    deputized = set(deputyships(actor).order_by().values_list("specialty", flat=True))
    for specialty in sorted(deputized & set(Specialty.values) - actor.specialties):
        missing |= missing_for(specialty) & Q(_deputized_for(actor, specialty))
    return (
        reviews_visible_to(actor)
        .filter(missing, ~Exists(_votes_of(actor.person_id)), state=ReviewState.OPEN)
        .exclude(opened_by_id=actor.person_id)
        .exclude(excluded_people__contains=[actor.person_id])
        .order_by("due_at", "pk")
    )


def reviews_assigned(actor: Principal) -> QuerySet[Review]:
    """Return open reviews that are assigned to the actor and lack their vote in this round; soonest
    due first.
    """
    if actor.person_id is None or not actor.specialties:
        return Review.objects.none()
    return (
        reviews_visible_to(actor)
        .filter(assigned_to(actor.person_id))
        .filter(~Exists(_votes_of(actor.person_id)), state=ReviewState.OPEN)
        .order_by("due_at", "pk")
    )


def _deputized_for(actor: Principal, specialty: str) -> Exists:
    """Match reviews in which the actor may vote as the deputy of an absent reviewer who had no part
    in it and has not voted. `stands_in_for` checks the same for one review.
    """
    review, absent = OuterRef(OuterRef("pk")), OuterRef("person_id")
    part = Review.objects.filter(pk=review, excluded_people__contains=[absent])
    votes = Decision.objects.filter(review=review, round=OuterRef(OuterRef("round")))
    voted = votes.exclude(verdict=Verdict.COMMENT).filter(
        Q(person_id=absent) | Q(in_place_of_id=absent)
    )
    away = deputyships(actor).order_by().filter(specialty=specialty)
    return Exists(away.filter(~Exists(part), ~Exists(voted)))


def _votes_of(person_id: int) -> QuerySet[Decision]:
    """Return the present round's votes by the person, or by a deputy in their place."""
    votes = Decision.objects.filter(review=OuterRef("pk"), round=OuterRef("round"))
    return votes.exclude(verdict=Verdict.COMMENT).filter(
        Q(person_id=person_id) | Q(in_place_of_id=person_id)
    )


class ReviewFilter(Filter):
    """Filters of the list. `missing` is a specialty that still lacks an approval; `assigned` keeps
    the reviews that are assigned to the caller.
    """

    state: ReviewState | None = None
    tier: Slug | None = Field(default=None, max_length=TIER_MAX)
    department: Slug | None = Field(default=None, max_length=DEPARTMENT_MAX)
    missing: Specialty | None = None
    due: Literal["overdue", "week"] | None = None
    assigned: Literal["me"] | None = None

    def applied_for(self, actor: Principal, reviews: QuerySet[Review]) -> QuerySet[Review]:
        """Return the reviews that pass every filter that is set."""
        if self.missing:
            reviews = reviews.filter(missing_for(self.missing), state__in=WAITING)
        if self.due:
            reviews = reviews.filter(due(self.due), state__in=WAITING)
        if self.assigned:
            # A key is not a person, and has no reviews assigned.
            reviews = reviews.filter(assigned_to(actor.person_id or 0))
        exact = {"tier": self.tier, "state": self.state, "department__slug": self.department}
        return reviews.filter(**{name: value for name, value in exact.items() if value})


def due(which: str) -> Q:
    """Match reviews by due time: `overdue`, or due within the next `week`."""
    now = timezone.now()
    return Q(due_at__lt=now) if which == "overdue" else Q(due_at__gte=now, due_at__lt=now + SOON)


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of reviews on the inbox's tabs."""

    mine: int
    waiting: int
    overdue: int
    closed: int


def inbox_counts(actor: Principal, query: ReviewFilter) -> Counts:
    """Return the numbers on the tabs, with two queries."""
    waiting = Q(state__in=WAITING)
    totals = (
        query.applied_for(actor, reviews_visible_to(actor))
        .order_by()
        .aggregate(
            waiting=Count("pk", filter=waiting),
            overdue=Count("pk", filter=waiting & due("overdue")),
            closed=Count("pk", filter=~waiting),
        )
    )
    mine = query.applied_for(actor, reviews_awaiting(actor)).order_by().count()
    return Counts(mine=mine, **totals)


def missing_specialties(reviews: Iterable[Review]) -> dict[int, list[str]]:
    """Return by review the specialties that the present round still lacks, with one query."""
    rows = list(reviews)
    approvals: Counter[tuple[int, str]] = Counter()
    present = {review.pk: (review.round, review.digest) for review in rows}
    votes = Decision.objects.filter(review__in=present, verdict=Verdict.APPROVE)
    for review, name, number, digest in votes.values_list(
        "review_id", "specialty", "round", "digest"
    ):
        approvals[review, name] += (number, digest) == present[review]
    return {
        review.pk: [
            name
            for name, needed in sorted(review.required_approvals.items())
            if needed > approvals[review.pk, name]
        ]
        for review in rows
    }
