"""Absences of reviewers, each with a deputy."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Identifier, Moment, StrictSerializer
from assay.api.idempotency import idempotent
from governance.people.models import Specialty
from governance.reviews.absences.selectors import absences_visible_to, reviewer_get
from governance.reviews.absences.services import absence_end, absence_set


class AbsenceAnswer(serializers.Serializer[Any]):
    """`deputy` may review for `specialty` in the place of `person` from `starts_at` to `ends_at`,
    or to `ended_at` when it was ended early."""

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


class AbsenceBody(StrictSerializer):
    """Deputy, specialty and dates of an absence. `person` defaults to the caller."""

    deputy = Identifier()
    specialty = Choice(choices=Specialty.choices)
    starts_at = Moment()
    ends_at = Moment()
    person = Identifier(required=False)


class AbsencesView(Endpoint):
    """Absences."""

    @operation("Reviews", "List absences of reviewers", answer=AbsenceAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        return self.page(absences_visible_to(self.actor), AbsenceAnswer)

    @operation(
        "Reviews",
        "Say who reviews in a reviewer's place while they are away",
        body=AbsenceBody,
        answer=AbsenceAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        given = self.body(AbsenceBody)
        person = given.pop("person", None)
        absence = absence_set(
            actor=self.actor,
            person=None if person is None else reviewer_get(actor=self.actor, person_id=person),
            deputy=reviewer_get(actor=self.actor, person_id=given.pop("deputy")),
            **given,
        )
        return self.answer(absence, AbsenceAnswer, status=201)


class AbsenceEndView(Endpoint):
    """Its end before time."""

    @operation(
        "Reviews",
        "End an absence now: the reviewer is back, or the deputy declines",
        answer=AbsenceAnswer,
    )
    @idempotent
    def post(self, request: Request, absence_id: int) -> Response:
        self.nothing()
        return self.answer(absence_end(actor=self.actor, absence_id=absence_id), AbsenceAnswer)
