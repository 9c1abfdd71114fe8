"""Recalling a version: the list of what it reaches first, then the action."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect

from assay.portal.forms import RecallForm
from assay.portal.http import ActionScreen, cleaned
from registry.versions.models import ModelVersion, VersionState
from registry.versions.recall import version_recall
from registry.versions.selectors import version_get
from workers.deployments.radius import blast_radius


class VersionRecall(ActionScreen):
    """Recalls a version for good."""

    template_name = "portal/models/recall.html"

    def form(self, version: ModelVersion) -> RecallForm:
        return RecallForm(self.request.POST or None, version=str(version))

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        radius = blast_radius(actor=self.actor, version_id=id)
        below = radius.below
        return {
            "version": below.version,
            "radius": radius,
            "below": below,
            "recalled": below.version.state == VersionState.RECALLED,
            "more_versions": below.versions_total - len(below.versions),
            "more_releases": below.releases_total - len(below.releases),
            "more_deployments": radius.deployments_total - len(radius.deployments),
            "form": self.form(below.version),
        }

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        version = version_get(actor=self.actor, id=id)
        given = cleaned(self.form(version))
        recalled = version_recall(
            actor=self.actor,
            version_id=id,
            reason=given["reason"],
            # Of the list that was on the page, whatever it is by now.
            confirm=self.request.POST.get("list", ""),
        )
        messages.success(
            self.request,
            f"{version} is recalled: {recalled.versions} versions, {recalled.releases} releases "
            f"and {recalled.reviews} open reviews are at an end.",
        )
        return redirect("portal:version", id=id)
