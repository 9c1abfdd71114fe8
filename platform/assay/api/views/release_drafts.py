"""Drafts of release requests."""

from __future__ import annotations

from django.db.models import QuerySet

from assay.api.representations.releases import ReleaseDetail, ReleaseDraftAnswer
from assay.api.routes import Routes
from assay.api.views.releases import release_detail
from governance.principals import Principal
from registry.releases.drafts.content import (
    NewReleaseDraft,
    ReleaseDraftChange,
    ReleaseDraftFilter,
)
from registry.releases.drafts.models import ReleaseDraft
from registry.releases.drafts.selectors import release_draft_get, release_drafts_visible_to
from registry.releases.drafts.services import (
    release_draft_create,
    release_draft_delete,
    release_draft_submit,
    release_draft_update,
)
from registry.releases.models import Release
from registry.versions.selectors import version_get

routes = Routes("Releases", ReleaseDraftAnswer)


@routes.list("release-drafts", "List release drafts", order=("-updated_at", "-id"))
def list_release_drafts(actor: Principal, query: ReleaseDraftFilter) -> QuerySet[ReleaseDraft]:
    return query.applied(release_drafts_visible_to(actor))


@routes.create("release-drafts", "Save a release draft, without submitting it for review")
def save(actor: Principal, body: NewReleaseDraft) -> ReleaseDraft:
    content = body.model_dump(exclude_unset=True)
    version = version_get(actor=actor, id=content.pop("version"))
    return release_draft_create(actor=actor, version=version, content=content)


@routes.get("release-drafts/<id:draft_id>", "One release draft")
def show(actor: Principal, draft_id: int) -> ReleaseDraft:
    return release_draft_get(actor=actor, id=draft_id)


@routes.put("release-drafts/<id:draft_id>", "Replace a release draft")
def replace(actor: Principal, draft_id: int, body: ReleaseDraftChange) -> ReleaseDraft:
    content = body.model_dump(exclude_unset=True)
    revision = content.pop("revision", None)
    return release_draft_update(actor=actor, draft_id=draft_id, content=content, revision=revision)


@routes.delete("release-drafts/<id:draft_id>", "Delete a release draft")
def delete(actor: Principal, draft_id: int) -> None:
    release_draft_delete(actor=actor, draft_id=draft_id)


@routes.create(
    "release-drafts/<id:draft_id>/submit",
    "Submit a release draft: freezes the dossier, opens the review and deletes the draft",
    answer=ReleaseDetail,
)
def submit(actor: Principal, draft_id: int) -> Release:
    release = release_draft_submit(actor=actor, draft_id=draft_id)
    return release_detail(actor, release.pk)
