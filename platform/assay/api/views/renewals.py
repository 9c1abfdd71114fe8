"""Submitting a release again."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Line, Object, Paragraphs, Several, Slug, StrictSerializer
from assay.api.idempotency import idempotent
from assay.api.representations.releases import ReleaseDetail
from assay.api.representations.renewals import RenewalAnswer
from assay.api.views.releases import MAX_DEPARTMENTS, shown_release
from governance.bounds import DEPARTMENT_MAX, TIER_MAX
from governance.people.selectors import department_get
from registry.releases.models import PURPOSE_MAX, Visibility
from registry.releases.renewal import release_renew, renewal_preview


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
