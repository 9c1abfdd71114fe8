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
    """Those of the actor and those they are the deputy of; all, for who sees everyone."""
    absences = Absence.objects.select_related("person", "deputy", "set_by")
    if sees_everyone(actor):
        return absences
    mine = Q(person_id=actor.person_id) | Q(deputy_id=actor.person_id)
    return absences.filter(mine) if actor.person_id is not None else absences.none()


def deputyships(actor: Principal) -> QuerySet[Absence]:
    """Return the absences for which `actor` is the deputy now, the oldest first.

    Only a reviewer is a deputy, and only for a specialty that the absent person still holds: a
    deputy casts that person's vote and gains no role of their own.
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
    """Specialties beyond the actor's own that they may vote for in this round, each with the
    person in whose place.

    A person who had a part in what is under review has no deputy, because an author would then
    choose who decides. Neither has a person who voted in this round, or whose deputy did: one role,
    one vote.
    """
    absences = [
        each
        for each in deputyships(actor)
        if each.person_id not in review.excluded_people and each.specialty not in actor.specialties
    ]
    if not absences:
        return {}
    spoken = _spoken_for(review, [each.person_id for each in absences])
    found: dict[str, int] = {}
    for each in absences:
        if each.person_id not in spoken:
            found.setdefault(each.specialty, each.person_id)
    return found


def _spoken_for(review: Review, people: Iterable[int]) -> set[int]:
    votes = review.decisions.exclude(verdict=Verdict.COMMENT).filter(round=review.round)
    wanted = set(people)
    rows = votes.filter(Q(person_id__in=wanted) | Q(in_place_of_id__in=wanted))
    return {each for row in rows.values_list("person_id", "in_place_of_id") for each in row if each}


def reviewers_known_to(actor: Principal) -> QuerySet[Person]:
    """Every active reviewer, for who is one or sees everyone: whom they may name as a deputy."""
    if not actor.specialties and not sees_everyone(actor):
        return Person.objects.none()
    held = RoleAssignment.objects.filter(person=OuterRef("pk"), role=Role.REVIEWER)
    return Person.objects.filter(Exists(held), is_active=True)


def reviewer_get(*, actor: Principal, person_id: int) -> Person:
    """Raises NotFound when there is no such reviewer, or the actor may not know of any."""
    found = reviewers_known_to(actor).filter(pk=person_id).first()
    if found is None:
        raise NotFound(f"Reviewer {person_id} does not exist, or you may not see it.")
    return found
