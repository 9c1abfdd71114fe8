"""Reviewers who could decide a review, counted before it is opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations

from django.utils import timezone

from governance.people.models import Person, Role, RoleAssignment
from governance.people.selectors import principals_of
from governance.permissions import Action
from governance.policy.context import probing_context
from governance.policy.engine import Resource, decide
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.reviews.absences.models import Absence


@dataclass(frozen=True, slots=True)
class ReviewerCount:
    """Active reviewers of one specialty, and their deputies.

    `able` may decide now. The others may not: `had_part` for separation of duties, `new` for the
    waiting time of the review policy, `away` for an absence.
    `short`: there are not enough people to give these approvals, as each gives only one.
    """

    specialty: str
    needed: int
    able: int
    had_part: int
    new: int
    away: int
    short: bool


@dataclass(slots=True)
class _Reviewer:
    """A reviewer, and since when they hold each specialty, including those as a deputy."""

    principal: Principal
    since: dict[str, datetime]


def reviewer_counts(
    required: Mapping[str, int],
    *,
    resource: Resource,
    excluded: Collection[int],
    vote_after_hours: int,
) -> list[ReviewerCount]:
    """Count the people who could give the `required` approvals (specialty to number) on `resource`.

    Takes four queries, whatever the number of reviewers.
    """
    policy, context = active_policy(), probing_context(Action.RELEASE_DECIDE)
    oldest = timezone.now() - timedelta(hours=vote_after_hours)
    reviewers = _reviewers()
    away = _absences(reviewers, excluded)
    people: dict[str, dict[str, set[int]]] = {name: defaultdict(set) for name in required}
    for pk, reviewer in reviewers.items():
        decision = decide(policy, reviewer.principal, Action.RELEASE_DECIDE, resource, context)
        for specialty in reviewer.since.keys() & required.keys():
            if pk in excluded:
                kind = "had_part"
            elif not decision.allowed:
                kind = "refused"
            elif vote_after_hours and reviewer.since[specialty] > oldest:
                kind = "new"
            elif (pk, specialty) in away:
                kind = "away"
            else:
                kind = "able"
            people[specialty][kind].add(pk)
    short = _short(required, {name: each["able"] for name, each in people.items()})
    return [
        ReviewerCount(
            specialty=name,
            needed=required[name],
            able=len(each["able"]),
            had_part=len(each["had_part"]),
            new=len(each["new"]),
            away=len(each["away"]),
            short=name in short,
        )
        for name, each in sorted(people.items())
    ]


def _reviewers() -> dict[int, _Reviewer]:
    """Return the active reviewers by person ID."""
    rows = RoleAssignment.objects.filter(role=Role.REVIEWER, person__is_active=True)
    people: dict[int, Person] = {}
    since: dict[int, dict[str, datetime]] = defaultdict(dict)
    for row in rows.select_related("person"):
        person = people.setdefault(row.person_id, row.person)
        start = max(row.created_at, person.created_at, person.empowered_at or person.created_at)
        since[person.pk][row.specialty] = start
    principals = principals_of(list(people.values()))
    return {pk: _Reviewer(each, since[pk]) for pk, each in zip(people, principals, strict=True)}


def _absences(
    reviewers: Mapping[int, _Reviewer], excluded: Collection[int]
) -> set[tuple[int, str]]:
    """Return absent reviewers with their specialties, after adding these to their deputies."""
    now = timezone.now()
    rows = Absence.objects.filter(starts_at__lte=now, ends_at__gt=now, ended_at__isnull=True)
    away = set()
    deputies: list[tuple[int, str]] = []
    for person, deputy, specialty in rows.values_list("person_id", "deputy_id", "specialty"):
        if specialty in getattr(reviewers.get(person), "since", {}):
            away.add((person, specialty))
            if deputy in reviewers and person not in excluded:
                deputies.append((deputy, specialty))
    for deputy, specialty in deputies:
        specialties = reviewers[deputy].since
        specialties.setdefault(specialty, min(specialties.values()))
    return away


def _short(required: Mapping[str, int], able: Mapping[str, set[int]]) -> set[str]:
    """Return specialties that cannot be covered by one approval a person (Hall's theorem)."""
    short: set[str] = set()
    for size in range(1, len(required) + 1):
        for names in combinations(sorted(required), size):
            able_people: set[int] = set().union(*(able[name] for name in names))
            if len(able_people) < sum(required[name] for name in names) and not short & set(names):
                short |= set(names)
    return short
