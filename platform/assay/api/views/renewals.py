"""Submitting a release again."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Line, Object, Paragraphs, Several, Slug, StrictSerializer
from assay.api.idempotency import idempotent
from assay.api.representations.common import PersonReference
from assay.api.representations.conditions import CarriedAnswer
from assay.api.representations.releases import ReleaseDetail
from assay.api.views.releases import MAX_DEPARTMENTS, shown_release
from governance.bounds import DEPARTMENT_MAX, TIER_MAX
from governance.people.selectors import department_get
from registry.releases.models import PURPOSE_MAX, Visibility
from registry.releases.renewal import release_renew, renewal_preview


class CarriedItemAnswer(serializers.Serializer[Any]):
    """An attestation that would be carried over: nothing changed that it rests on."""

    code = serializers.CharField()
    title = serializers.CharField()
    note = serializers.CharField()
    attested_by = PersonReference()
    attested_at = serializers.DateTimeField()
    carried_from = CarriedAnswer(
        allow_null=True, help_text="Where it was carried over once before: its first review."
    )


class DossierChangeAnswer(serializers.Serializer[Any]):
    """A section of the dossier that is not what it was; in short, empty where that is long."""

    section = serializers.CharField()
    before = serializers.CharField(allow_blank=True)
    after = serializers.CharField(allow_blank=True)


class RenewalAnswer(serializers.Serializer[Any]):
    """Items carried over if it were submitted again, unchanged. `obstacle` is the reason why that
    is impossible now; an empty sentence means that it is possible.
    """

    release = serializers.IntegerField(source="release.pk")
    obstacle = serializers.CharField(allow_blank=True)
    hint = serializers.CharField(allow_blank=True)
    carried = CarriedItemAnswer(many=True)
    anew = serializers.ListField(
        child=serializers.CharField(), help_text="What a reviewer must attest again."
    )
    changes = DossierChangeAnswer(many=True)


class RenewalBody(StrictSerializer):
    """Fields that differ from the release that is submitted again."""

    departments = Several(
        child=Slug(max_length=DEPARTMENT_MAX),
        min_length=1,
        max_length=MAX_DEPARTMENTS,
        required=False,
    )
    visibility = Choice(choices=Visibility.choices, required=False)
    purpose = Paragraphs(max_length=PURPOSE_MAX, required=False)
    risk_answers = Object(required=False)
    dossier_fields = Object(required=False)
    tier = Line(max_length=TIER_MAX, required=False)


class RenewalView(Endpoint):
    """The renewal of one release."""

    @operation(
        "Releases",
        "What submitting a release again would carry over, and what has changed since",
        answer=RenewalAnswer,
    )
    def get(self, request: Request, release_id: int) -> Response:
        self.query()
        return self.answer(renewal_preview(actor=self.actor, release_id=release_id), RenewalAnswer)

    @operation(
        "Releases",
        "Submit a release again: a new one, prefilled, which is decided anew",
        body=RenewalBody,
        answer=ReleaseDetail,
        status=201,
    )
    @idempotent
    def post(self, request: Request, release_id: int) -> Response:
        given = self.body(RenewalBody)
        if "departments" in given:
            given["departments"] = [department_get(slug=s) for s in set(given["departments"])]
        made = release_renew(actor=self.actor, release_id=release_id, **given)
        return self.answer(shown_release(self.actor, made.pk), ReleaseDetail, status=201)
