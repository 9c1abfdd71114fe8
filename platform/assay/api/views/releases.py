"""Releases, their frozen dossiers, exports, and decisions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.renderers import Archive, CycloneDX, Page, Pdf, Spdx
from assay.api.representations.releases import (
    DecisionAnswer,
    DossierAnswer,
    ReleaseAnswer,
    ReleaseDetail,
    ReviewAnswer,
)
from assay.api.routes import Routes
from assay.downloads import dossier_file, evidence_file
from governance.people.models import Department
from governance.people.selectors import department_get
from governance.principals import Principal
from governance.reviews.assignments.selectors import assignees_by_review
from governance.reviews.checklist import checklist_attest
from governance.reviews.inbox import reviews_awaiting
from governance.reviews.models import Decision, Review, Verdict
from governance.reviews.selectors import review_standing, reviews_visible_to, verdict_obstacle_words
from governance.schemas import Schema
from registry.releases.equivalence.selectors import release_checks
from registry.releases.exports.services import FORMATS
from registry.releases.models import Release
from registry.releases.schemas import (
    Attestation,
    ChangesAnswer,
    InboxFilter,
    NewRelease,
    ReleaseDecision,
    ReleaseFilter,
    ReleaseWithdrawal,
)
from registry.releases.selectors import release_get, release_review, releases_visible_to
from registry.releases.services import (
    release_answer,
    release_decide,
    release_submit,
    release_withdraw,
)
from registry.releases.software import code_changed, code_named
from registry.releases.threads import release_review_get
from registry.versions.selectors import version_get


def review_detail(actor: Principal, review: Review) -> Review:
    """Return the review with the additional attributes that `ReviewDetail` shows `actor`."""
    standing = review_standing(review)
    detail: Any = review
    detail.standing = {
        "required": standing.required,
        "given": standing.approvals,
        "missing": standing.missing,
        "blocking": [item.code for item in standing.blocking],
        "unresolved": [thread.pk for thread in standing.unresolved],
    }
    detail.why_not = {
        str(verdict): verdict_obstacle_words(actor, review, str(verdict))
        for verdict in Verdict.values
    }
    return with_assignees([review])[0]


def with_assignees(reviews: Iterable[Any]) -> list[Review]:
    """Return the reviews with their assignees."""
    rows = list(reviews)
    assigned = assignees_by_review(rows)
    for row in rows:
        row.assignees = assigned[row.pk]
    return rows


def release_detail(actor: Principal, release_id: int) -> Release:
    """Return the release with the additional attributes that `ReleaseDetail` shows `actor`."""
    release = release_get(actor=actor, id=release_id)
    review = release_review(release)
    detail: Any = release
    renewals = releases_visible_to(actor).filter(renews=release.pk).order_by("pk")
    # Not the row's `renewals`, which are not limited to those that `actor` may see.
    detail.renewed_as = list(renewals.values_list("pk", flat=True))
    detail.review = review_detail(actor, review) if review is not None else None
    detail.code = {**code_named(release.dossier), "difference": code_changed(release)}
    detail.upgrades = release_checks(release)
    return release


routes = Routes("Releases", ReleaseDetail)


@routes.list("releases", "List releases", answer=ReleaseAnswer)
def list_releases(actor: Principal, query: ReleaseFilter) -> QuerySet[Release]:
    return query.applied(releases_visible_to(actor))


@routes.create("releases", "Submit a version for release: freezes the dossier and opens the review")
def submit(actor: Principal, body: NewRelease) -> Release:
    values = dict(body) | {
        "version": version_get(actor=actor, id=body.version),
        "departments": departments_named(body.departments),
    }
    release = release_submit(actor=actor, **values)
    return release_detail(actor, release.pk)


@routes.get(
    "releases/<id:release_id>",
    "One release: its review, checklist, decisions, and the decisions you may make",
)
def show(actor: Principal, release_id: int) -> Release:
    return release_detail(actor, release_id)


@routes.get(
    "releases/<id:release_id>/dossier",
    "The frozen dossier of a release",
    answer=DossierAnswer,
    name="dossier_get",
)
def dossier(actor: Principal, release_id: int) -> dict[str, Any]:
    release = release_get(actor=actor, id=release_id)
    return {"digest": release.dossier_digest, "dossier": release.dossier}


@routes.list(
    "releases/<id:release_id>/decisions",
    "The decisions on a release, in order",
    answer=DecisionAnswer,
    order=(),
    name="decisions_get",
)
def decisions(actor: Principal, release_id: int) -> Iterable[Decision]:
    review = release_review(release_get(actor=actor, id=release_id))
    return review.decisions.all() if review is not None else ()


@routes.create(
    "releases/<id:release_id>/decisions",
    "Comment, request changes, approve or reject",
    name="decisions_post",
)
def decide(actor: Principal, release_id: int, body: ReleaseDecision) -> Release:
    release_get(actor=actor, id=release_id)
    values = dict(body) | {
        "specialty": body.specialty or "",
        "conditions": body.conditions and body.conditions.model_dump(exclude_unset=True),
    }
    release_decide(actor=actor, release_id=release_id, **values)
    return release_detail(actor, release_id)


@routes.create(
    "releases/<id:release_id>/answers",
    "Answer a request for changes, which opens the next round",
    name="answers_post",
)
def answer(actor: Principal, release_id: int, body: ChangesAnswer) -> Release:
    release_answer(actor=actor, release_id=release_id, **dict(body))
    return release_detail(actor, release_id)


@routes.create(
    "releases/<id:release_id>/checklist/<slug:code>",
    "Attest a checklist item",
    name="checklist_item_post",
)
def attest(actor: Principal, release_id: int, code: str, body: Attestation) -> Release:
    review = release_review_get(actor=actor, release_id=release_id)
    checklist_attest(actor=actor, review_id=review.pk, code=code, note=body.note)
    return release_detail(actor, release_id)


@routes.post(
    "releases/<id:release_id>/withdraw",
    "Withdraw a release",
    name="withdraw_post",
    repeatable=True,
)
def withdraw(actor: Principal, release_id: int, body: ReleaseWithdrawal) -> Release:
    release_withdraw(actor=actor, release_id=release_id, reason=body.reason)
    return release_detail(actor, release_id)


def departments_named(slugs: Iterable[str]) -> list[Department]:
    """Return each department once. Raises NotFound if one does not exist."""
    return [department_get(slug=slug) for slug in set(slugs)]


class EvidenceView(Endpoint):
    """The evidence pack of a release."""

    renderer_classes = (Archive, *Endpoint.renderer_classes)

    @operation(
        "Releases",
        "The signed evidence pack of a release, with a verifier that needs only Python",
        answer=OpenApiResponse(OpenApiTypes.BINARY, description="A .zip archive."),
    )
    def get(self, request: Request, release_id: int) -> HttpResponse:
        self.query_as(Schema)
        return evidence_file(self.actor, release_id)


class ReviewsView(Endpoint):
    """Reviews."""

    @operation("Releases", "List reviews", query=InboxFilter, answer=ReviewAnswer, paged=True)
    def get(self, request: Request) -> Response:
        query = self.query_as(InboxFilter)
        rows = reviews_awaiting(self.actor) if query.awaiting else reviews_visible_to(self.actor)
        if query.awaiting or query.due:
            self.ordering = ("due_at", "id")
        rows = query.applied_for(self.actor, rows)
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
        answer=OpenApiResponse(
            OpenApiTypes.BINARY, description="Always the same for the same dossier."
        ),
    )
    def get(self, request: Request, release_id: int, file_format: str) -> HttpResponse:
        self.query_as(Schema)
        return dossier_file(self.actor, release_id=release_id, file_format=file_format)
