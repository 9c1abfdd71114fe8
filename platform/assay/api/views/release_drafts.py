"""Drafts of release requests."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import (
    MAX_IDENTIFIER,
    Choice,
    Identifier,
    Line,
    Object,
    Paragraphs,
    Several,
    StrictSerializer,
    Whole,
)
from assay.api.idempotency import idempotent
from assay.api.representations.releases import ReleaseDetail, ReleaseDraftAnswer
from assay.api.views.releases import DOSSIER_FIELDS, shown_release
from governance.bounds import DEPARTMENT_MAX, NAME_MAX, TIER_MAX
from registry.releases.drafts.content import DEPARTMENTS_MAX
from registry.releases.drafts.selectors import release_draft_get, release_drafts_visible_to
from registry.releases.drafts.services import (
    release_draft_create,
    release_draft_delete,
    release_draft_submit,
    release_draft_update,
)
from registry.releases.engines import ENGINES, Precision
from registry.releases.models import PURPOSE_MAX, Environment, Visibility
from registry.versions.selectors import version_get


class ReleaseDraftQuery(StrictSerializer):
    """Filters of the list."""

    version = serializers.IntegerField(min_value=1, max_value=MAX_IDENTIFIER, required=False)
    model = Line(max_length=NAME_MAX, required=False)


class ReleaseDraftContentBody(StrictSerializer):
    """Parts of a request for a release; each may be left out until it is submitted."""

    environment = Choice(choices=Environment.choices, required=False)
    deployment_name = Line(max_length=NAME_MAX, required=False)
    departments = Several(
        child=Line(max_length=DEPARTMENT_MAX), max_length=DEPARTMENTS_MAX, required=False
    )
    visibility = Choice(choices=Visibility.choices, required=False)
    purpose = Paragraphs(max_length=PURPOSE_MAX, required=False)
    risk_answers = Object(required=False)
    dossier_fields = Object(required=False, help_text=DOSSIER_FIELDS)
    tier = Line(max_length=TIER_MAX, required=False)
    engine = Choice(choices=ENGINES, required=False)
    precision = Choice(choices=Precision.choices, required=False)


class ReleaseDraftBody(ReleaseDraftContentBody):
    """A version, and the request for its release so far."""

    version = Identifier()


class ReleaseDraftChangeBody(ReleaseDraftContentBody):
    """Content in the place of all that was there. With `revision`, only if that is the newest."""

    revision = Whole(min_value=1, max_value=2**31 - 1, required=False)


class ReleaseDraftsView(Endpoint):
    """Drafts of departments in which the caller may submit releases."""

    ordering = ("-updated_at", "-id")

    @operation(
        "Releases",
        "List release drafts",
        query=ReleaseDraftQuery,
        answer=ReleaseDraftAnswer,
        paged=True,
    )
    def get(self, request: Request) -> Response:
        given = self.query(ReleaseDraftQuery)
        rows = release_drafts_visible_to(self.actor)
        if "version" in given:
            rows = rows.filter(version=given["version"])
        if "model" in given:
            rows = rows.filter(version__model__name=given["model"])
        return self.page(rows, ReleaseDraftAnswer)

    @operation(
        "Releases",
        "Save a release draft, which is not reviewed",
        body=ReleaseDraftBody,
        answer=ReleaseDraftAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        given = self.body(ReleaseDraftBody)
        version = version_get(actor=self.actor, id=given.pop("version"))
        draft = release_draft_create(actor=self.actor, version=version, content=given)
        return self.answer(draft, ReleaseDraftAnswer, status=201)


class ReleaseDraftView(Endpoint):
    """One draft."""

    @operation("Releases", "One release draft", answer=ReleaseDraftAnswer)
    def get(self, request: Request, draft_id: int) -> Response:
        self.query()
        return self.answer(release_draft_get(actor=self.actor, id=draft_id), ReleaseDraftAnswer)

    @operation(
        "Releases",
        "Replace a release draft",
        body=ReleaseDraftChangeBody,
        answer=ReleaseDraftAnswer,
    )
    def put(self, request: Request, draft_id: int) -> Response:
        given: dict[str, Any] = self.body(ReleaseDraftChangeBody)
        revision = given.pop("revision", None)
        draft = release_draft_update(
            actor=self.actor, draft_id=draft_id, content=given, revision=revision
        )
        return self.answer(draft, ReleaseDraftAnswer)

    @operation("Releases", "Delete a release draft", answer=None, status=204)
    def delete(self, request: Request, draft_id: int) -> Response:
        self.nothing()
        release_draft_delete(actor=self.actor, draft_id=draft_id)
        return Response(status=204)


class ReleaseDraftSubmitView(Endpoint):
    """The request that a draft holds."""

    @operation(
        "Releases",
        "Submit a release draft: freezes the dossier, opens the review and deletes the draft",
        answer=ReleaseDetail,
        status=201,
    )
    @idempotent
    def post(self, request: Request, draft_id: int) -> Response:
        self.nothing()
        made = release_draft_submit(actor=self.actor, draft_id=draft_id)
        return self.answer(shown_release(self.actor, made.pk), ReleaseDetail, status=201)
