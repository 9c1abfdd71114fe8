"""Absences of reviewers, each with a deputy."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from assay.api.routes import Routes
from governance.principals import Principal
from governance.reviews.absences.models import Absence
from governance.reviews.absences.schemas import NewAbsence
from governance.reviews.absences.selectors import absences_visible_to, reviewer_get
from governance.reviews.absences.services import absence_end, absence_set


class AbsenceAnswer(serializers.Serializer[Any]):
    """An absence. `deputy` may review for `specialty` in place of `person` from `starts_at` to
    `ends_at`, or to `ended_at` if it was ended early."""

    id = serializers.IntegerField()
    person = serializers.IntegerField(source="person_id")
    person_name = serializers.CharField(source="person.name")
    deputy = serializers.IntegerField(source="deputy_id")
    deputy_name = serializers.CharField(source="deputy.name")
    specialty = serializers.CharField()
    starts_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    set_by = serializers.IntegerField(source="set_by_id")
    created_at = serializers.DateTimeField()


routes = Routes("Reviews", AbsenceAnswer)


@routes.list("absences", "List absences of reviewers")
def list_absences(actor: Principal) -> QuerySet[Absence]:
    return absences_visible_to(actor)


@routes.create("absences", "Name a deputy for a reviewer who is away")
def create(actor: Principal, body: NewAbsence) -> Absence:
    return absence_set(
        actor=actor,
        person=reviewer_get(actor=actor, person_id=body.person) if body.person else None,
        deputy=reviewer_get(actor=actor, person_id=body.deputy),
        specialty=body.specialty,
        starts_at=body.starts_at,
        ends_at=body.ends_at,
    )


@routes.post(
    "absences/<id:absence_id>/end",
    "End an absence now: the reviewer is back, or the deputy declines",
    repeatable=True,
)
def end(actor: Principal, absence_id: int) -> Absence:
    return absence_end(actor=actor, absence_id=absence_id)
