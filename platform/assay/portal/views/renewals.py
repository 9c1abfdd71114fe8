"""Submitting a release again: what is carried over, what changed, and the button."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect

from assay.portal.http import ActionScreen
from registry.releases.renewal import (
    HISTORY_SHOWN,
    release_history,
    release_renew,
    renewal_preview,
)
from registry.releases.selectors import release_review


class ReleaseRenewal(ActionScreen):
    """One release, about to be submitted again."""

    template_name = "portal/models/renewal.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        preview = renewal_preview(actor=self.actor, release_id=id)
        history = release_history(actor=self.actor, release=preview.release)
        return {
            "preview": preview,
            "release": preview.release,
            "history": history[:HISTORY_SHOWN],
        }

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        made = release_renew(actor=self.actor, release_id=id)
        messages.success(self.request, "Submitted again with a fresh dossier.")
        review = release_review(made)
        if review is None:
            return redirect("portal:release", id=made.pk)
        return redirect("portal:review", id=review.pk)
