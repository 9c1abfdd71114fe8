"""Selectors for absences, and for the reviewers whose deputy a person is now."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from governance.errors import NotFound
from governance.people.models import Person, Role, RoleAssignment
from governance.people.selectors import sees_everyone
from governance.principals import Principal
from governance.reviews.absences.models import Absence
from governance.reviews.models import Review, Verdict


def absences_visible_to(actor: Principal) -> QuerySet[Absence]:
    """Return absences of the actor, or with them as deputy; all, if the actor sees everyone."""
    absences = Absence.objects.select_related("person", "deputy", "set_by")
    if sees_everyone(actor):
        return absences
    mine = Q(person_id=actor.person_id) | Q(deputy_id=actor.person_id)
    return absences.filter(mine) if actor.person_id is not None else absences.none()


def deputyships(actor: Principal) -> QuerySet[Absence]:
    """Return the absences for which `actor` is the deputy now, the oldest first.

    The actor must be a reviewer, and the absent person must still hold the specialty: a deputy
    casts that person's vote and gains no role.
    """
    if actor.person_id is None or not actor.specialties:
        return Absence.objects.none()
    now = timezone.now()
    still_held = RoleAssignment.objects.filter(
        person=OuterRef("person"),
        person__is_active=True,
        role=Role.REVIEWER,
        specialty=OuterRef("specialty"),
    )
    return Absence.objects.filter(
        Exists(still_held),
        deputy_id=actor.person_id,
        starts_at__lte=now,
        ends_at__gt=now,
        ended_at__isnull=True,
    ).order_by("id")


def stands_in_for(actor: Principal, review: Review) -> dict[str, int]:
    """Return other specialties that the actor may vote for as a deputy in this round, each with the
    absent person's ID.

    A person who had a part in the subject has no deputy: an author would choose who decides. Nor
    has a person who voted in this round, or whose deputy did: a role has one vote.
    """
    absences = [
        each
        for each in deputyships(actor)
        if each.person_id not in review.excluded_people and each.specialty not in actor.specialties
    ]
    if not absences:
        return {}
    voted = _voters(review, [each.person_id for each in absences])
    absent_people: dict[str, int] = {}
    for each in absences:
        if each.person_id not in voted:
            absent_people.setdefault(each.specialty, each.person_id)
    return absent_people


def _voters(review: Review, people: Iterable[int]) -> set[int]:
    votes = review.decisions.exclude(verdict=Verdict.COMMENT).filter(round=review.round)
    ids = set(people)
    rows = votes.filter(Q(person_id__in=ids) | Q(in_place_of_id__in=ids))
    return {each for row in rows.values_list("person_id", "in_place_of_id") for each in row if each}


def reviewers_visible_to(actor: Principal) -> QuerySet[Person]:
    """Return the active reviewers, possible deputies, if the actor is one or sees everyone."""
    if not actor.specialties and not sees_everyone(actor):
        return Person.objects.none()
    roles = RoleAssignment.objects.filter(person=OuterRef("pk"), role=Role.REVIEWER)
    return Person.objects.filter(Exists(roles), is_active=True)


def reviewer_get(*, actor: Principal, person_id: int) -> Person:
    """Return the reviewer. Raises NotFound if they do not exist, or the actor may not see them."""
    reviewer = reviewers_visible_to(actor).filter(pk=person_id).first()
    if reviewer is None:
        raise NotFound(f"Reviewer {person_id} does not exist, or you may not see it.")
    return reviewer
