"""Releases, the dossier they freeze, its exports, and the decisions on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import (
    Choice,
    Identifier,
    Line,
    Moment,
    Object,
    Paragraphs,
    Several,
    Slug,
    StrictSerializer,
    Truth,
    Whole,
)
from assay.api.idempotency import idempotent
from assay.api.representations.releases import (
    DecisionAnswer,
    DossierAnswer,
    ReleaseAnswer,
    ReleaseDetail,
    ReviewAnswer,
)
from assay.api.written import Archive, CycloneDX, Page, Pdf, Spdx
from assay.downloads import dossier_file, evidence_file
from governance.bounds import DEPARTMENT_MAX, NAME_MAX, TIER_MAX
from governance.errors import NotFound
from governance.people.models import Specialty
from governance.people.selectors import department_get
from governance.principals import Principal
from governance.reviews.assignments.selectors import assignees_by_review
from governance.reviews.checklist import checklist_attest
from governance.reviews.inbox import DUE, Asked, reviews_awaiting
from governance.reviews.models import NOTE_MAX, REASON_MAX, Review, ReviewState, Verdict
from governance.reviews.selectors import review_standing, reviews_visible_to, why_not
from registry.releases.conditions import OBLIGATION_MAX, OBLIGATIONS_MAX, RATE_MAX
from registry.releases.engines import ENGINES, Precision
from registry.releases.equivalence.selectors import release_checks
from registry.releases.exports.services import FORMATS
from registry.releases.models import (
    PURPOSE_MAX,
    WITHDRAW_REASON_MAX,
    Environment,
    Release,
    ReleaseState,
    Visibility,
)
from registry.releases.selectors import release_get, release_review, releases_visible_to
from registry.releases.services import (
    release_answer,
    release_decide,
    release_submit,
    release_withdraw,
)
from registry.releases.software import code_changed, code_named
from registry.versions.selectors import version_get

MAX_DEPARTMENTS = 100
DOSSIER_FIELDS = (
    "The dossier's sections other than the risk answers; each may be omitted. "
    "`risks`: up to 20 of {hazard, likelihood: rare|possible|likely, severity: "
    "minor|serious|critical, mitigation, residual: low|medium|high, accepter_role, "
    "accepter_person}. `oversight`: {overseers, stop_procedure, stop_tested_on, measures}. "
    "`operation`: {monitors, incident_contact, review_date}. `conformity`: {route: "
    "not_applicable|voluntary|internal_control|notified_body, standards, declaration}."
)


def shown_review(actor: Principal, review: Review) -> Review:
    """Return the review with the additional attributes that `ReviewDetail` shows `actor`."""
    standing = review_standing(review)
    shown: Any = review
    shown.standing = {
        "required": standing.required,
        "given": standing.given,
        "missing": standing.missing,
        "blocking": [item.code for item in standing.blocking],
        "unresolved": [thread.pk for thread in standing.unresolved],
    }
    shown.why_not = {
        str(verdict): why_not(actor, review, str(verdict)) for verdict in Verdict.values
    }
    return with_assignees([review])[0]


def with_assignees(reviews: Iterable[Any]) -> list[Review]:
    """The reviews with the people to whom each is assigned."""
    found = list(reviews)
    assigned = assignees_by_review(found)
    for review in found:
        review.assignees = assigned[review.pk]
    return found


def shown_release(actor: Principal, release_id: int) -> Release:
    """The release with its newest review, as `ReleaseDetail` shows them to `actor`."""
    release = release_get(actor=actor, id=release_id)
    review = release_review(release)
    shown: Any = release
    again = releases_visible_to(actor).filter(renews=release.pk).order_by("pk")
    # `renewals` of the row itself are those that anybody may see.
    shown.renewed_as = list(again.values_list("pk", flat=True))
    shown.review = shown_review(actor, review) if review is not None else None
    shown.code = {**code_named(release.dossier), "difference": code_changed(release)}
    shown.upgrades = release_checks(release)
    return release


class ReleaseQuery(StrictSerializer):
    """Filters of the list."""

    state = Choice(choices=ReleaseState.choices, required=False)
    environment = Choice(choices=Environment.choices, required=False)
    deployment_name = Line(max_length=NAME_MAX, required=False)


class ReleaseBody(StrictSerializer):
    """Which version, where, under which name, for whom, for what, at which risk."""

    version = Identifier()
    environment = Choice(choices=Environment.choices)
    deployment_name = Slug(max_length=NAME_MAX)
    departments = Several(
        child=Slug(max_length=DEPARTMENT_MAX), min_length=1, max_length=MAX_DEPARTMENTS
    )
    visibility = Choice(choices=Visibility.choices, required=False)
    purpose = Paragraphs(max_length=PURPOSE_MAX)
    risk_answers = Object(required=False)
    dossier_fields = Object(required=False, help_text=DOSSIER_FIELDS)
    tier = Slug(max_length=TIER_MAX, required=False)
    engine = Choice(choices=ENGINES, required=False)
    precision = Choice(choices=Precision.choices, required=False)


class ReleasesView(Endpoint):
    """Releases."""

    @operation("Releases", "List releases", query=ReleaseQuery, answer=ReleaseAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(ReleaseQuery)
        return self.page(releases_visible_to(self.actor).filter(**given), ReleaseAnswer)

    @operation(
        "Releases",
        "Submit a version for release: freezes the dossier and opens the review",
        body=ReleaseBody,
        answer=ReleaseDetail,
        status=201,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        given = self.body(ReleaseBody)
        made = release_submit(
            actor=self.actor,
            version=version_get(actor=self.actor, id=given["version"]),
            environment=given["environment"],
            deployment_name=given["deployment_name"],
            departments=[department_get(slug=slug) for slug in set(given["departments"])],
            visibility=given.get("visibility", str(Visibility.DEPARTMENT)),
            purpose=given["purpose"],
            risk_answers=given.get("risk_answers", {}),
            dossier_fields=given.get("dossier_fields"),
            tier=given.get("tier", "limited"),
            engine=given.get("engine"),
            precision=given.get("precision"),
        )
        return self.answer(shown_release(self.actor, made.pk), ReleaseDetail, status=201)


class ReleaseView(Endpoint):
    """One release."""

    @operation(
        "Releases",
        "One release: its review, checklist, decisions, and what you may decide",
        answer=ReleaseDetail,
    )
    def get(self, request: Request, release_id: int) -> Response:
        self.query()
        return self.answer(shown_release(self.actor, release_id), ReleaseDetail)


class DossierView(Endpoint):
    """The dossier that reviewers decide on."""

    @operation("Releases", "The frozen dossier of a release", answer=DossierAnswer)
    def get(self, request: Request, release_id: int) -> Response:
        self.query()
        release = release_get(actor=self.actor, id=release_id)
        return self.answer(
            {"digest": release.dossier_digest, "dossier": release.dossier}, DossierAnswer
        )


class EvidenceView(Endpoint):
    """The evidence to take along."""

    renderer_classes = (Archive, *Endpoint.renderer_classes)

    @operation(
        "Releases",
        "The signed evidence pack of a release, with a verifier that needs only Python",
        answer=OpenApiResponse(OpenApiTypes.BINARY, description="A .zip archive."),
    )
    def get(self, request: Request, release_id: int) -> HttpResponse:
        self.query()
        return evidence_file(self.actor, release_id)


class ConditionsBody(StrictSerializer):
    """Conditions of an approval: departments, end, request rate, and obligations."""

    departments = Several(
        child=Slug(max_length=DEPARTMENT_MAX),
        max_length=MAX_DEPARTMENTS,
        required=False,
        min_length=1,
    )
    until = Moment(required=False)
    requests_per_minute = Whole(min_value=1, max_value=RATE_MAX, required=False)
    requests_per_minute_of = Object(
        child=Whole(min_value=1, max_value=RATE_MAX), max_members=MAX_DEPARTMENTS, required=False
    )
    obligations = Several(
        child=Paragraphs(max_length=OBLIGATION_MAX), max_length=OBLIGATIONS_MAX, required=False
    )


class DecisionBody(StrictSerializer):
    """One's word on the dossier with this digest. `conditions` go with an approval; what one has
    drafted in the review's threads is said with it, unless `submit_drafts` is false."""

    verdict = Choice(choices=Verdict.choices)
    reason = Paragraphs(max_length=REASON_MAX)
    digest = Line(min_length=64, max_length=64)
    specialty = Choice(choices=Specialty.choices, required=False)
    conditions = ConditionsBody(required=False)
    submit_drafts = Truth(required=False, default=True)


class DecisionsView(Endpoint):
    """Decisions on one release."""

    @operation("Releases", "The decisions on a release, in order", answer=DecisionAnswer(many=True))
    def get(self, request: Request, release_id: int) -> Response:
        self.query()
        review = release_review(release_get(actor=self.actor, id=release_id))
        decisions = review.decisions.all() if review is not None else ()
        return Response(self.rendered(decisions, DecisionAnswer))

    @operation(
        "Releases",
        "Comment, request changes, approve or reject",
        body=DecisionBody,
        answer=ReleaseDetail,
        status=201,
    )
    @idempotent
    def post(self, request: Request, release_id: int) -> Response:
        given = self.body(DecisionBody)
        release_get(actor=self.actor, id=release_id)
        release_decide(actor=self.actor, release_id=release_id, **given)
        return self.answer(shown_release(self.actor, release_id), ReleaseDetail, status=201)


class AnswerBody(StrictSerializer):
    """The department's answer. Risk answers and dossier fields, where given, stand in the place of
    all that were there, and make a new dossier."""

    message = Paragraphs(max_length=REASON_MAX)
    risk_answers = Object(required=False)
    dossier_fields = Object(required=False, help_text=DOSSIER_FIELDS)


class AnswersView(Endpoint):
    """Answers to a request for changes."""

    @operation(
        "Releases",
        "Answer a request for changes, which opens the next round",
        body=AnswerBody,
        answer=ReleaseDetail,
        status=201,
    )
    @idempotent
    def post(self, request: Request, release_id: int) -> Response:
        release_answer(actor=self.actor, release_id=release_id, **self.body(AnswerBody))
        return self.answer(shown_release(self.actor, release_id), ReleaseDetail, status=201)


class AttestBody(StrictSerializer):
    """Description of what was checked, in the reviewer's words."""

    note = Paragraphs(max_length=NOTE_MAX)


class ChecklistItemView(Endpoint):
    """One item of a release's checklist."""

    @operation(
        "Releases",
        "Attest a checklist item",
        body=AttestBody,
        answer=ReleaseDetail,
        status=201,
    )
    @idempotent
    def post(self, request: Request, release_id: int, code: str) -> Response:
        given = self.body(AttestBody)
        release = release_get(actor=self.actor, id=release_id)
        review = release_review(release)
        if review is None:
            raise NotFound(f"{release} has no review, and so no checklist.")
        checklist_attest(actor=self.actor, review_id=review.pk, code=code, note=given["note"])
        return self.answer(shown_release(self.actor, release_id), ReleaseDetail, status=201)


class WithdrawBody(StrictSerializer):
    """Why."""

    reason = Paragraphs(max_length=WITHDRAW_REASON_MAX)


class WithdrawView(Endpoint):
    """Take a request back."""

    @operation("Releases", "Withdraw a release", body=WithdrawBody, answer=ReleaseDetail)
    @idempotent
    def post(self, request: Request, release_id: int) -> Response:
        release_withdraw(actor=self.actor, release_id=release_id, **self.body(WithdrawBody))
        return self.answer(shown_release(self.actor, release_id), ReleaseDetail)


class ReviewQuery(StrictSerializer):
    """Filters of the list. `missing` is a specialty that still lacks an approval; `awaiting`
    leaves what waits for the vote of the caller, and `assigned` what is assigned to them; with
    `awaiting` or `due`, what is due first comes first.
    """

    state = Choice(choices=ReviewState.choices, required=False)
    tier = Slug(max_length=TIER_MAX, required=False)
    department = Slug(max_length=DEPARTMENT_MAX, required=False)
    missing = Choice(choices=Specialty.choices, required=False)
    due = Choice(choices=[(each, each) for each in DUE], required=False)
    awaiting = Choice(choices=[("me", "me")], required=False)
    assigned = Choice(choices=[("me", "me")], required=False)


class ReviewsView(Endpoint):
    """Reviews."""

    @operation("Releases", "List reviews", query=ReviewQuery, answer=ReviewAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(ReviewQuery)
        awaiting = given.pop("awaiting", "")
        rows = reviews_awaiting(self.actor) if awaiting else reviews_visible_to(self.actor)
        if awaiting or "due" in given:
            self.ordering = ("due_at", "id")
        if given.pop("assigned", ""):
            # A key is no person, and has nothing assigned.
            given["assignee"] = self.actor.person_id or 0
        rows = Asked(**given).applied(rows)
        return self.page(rows, ReviewAnswer, prepared=with_assignees)


_FORMATS = " ".join(f"`{name}`: {each.title}. {each.about}" for name, each in FORMATS.items())
EXPORT_FORMAT = OpenApiParameter(
    "file_format", str, OpenApiParameter.PATH, enum=list(FORMATS), description=_FORMATS
)


class ReleaseExportView(Endpoint):
    """The frozen dossier in one format."""

    renderer_classes = (Pdf, Page, *Endpoint.renderer_classes, CycloneDX, Spdx)

    @operation(
        "Releases",
        "The frozen dossier of a release as PDF, HTML, JSON, CycloneDX or SPDX",
        parameters=[EXPORT_FORMAT],
        answer=OpenApiResponse(OpenApiTypes.BINARY, description="The same for the same dossier."),
    )
    def get(self, request: Request, release_id: int, file_format: str) -> HttpResponse:
        self.query()
        return dossier_file(self.actor, release_id=release_id, file_format=file_format)
