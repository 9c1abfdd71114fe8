"""Parts of the dossier that an answer may change."""

from __future__ import annotations

from typing import Any

from assay.portal.dossier_forms import DossierForms
from assay.portal.reviewing.parts import Page
from governance.reviews.models import ReviewState


def dossier(page: Page) -> dict[str, Any]:
    """The dossier's answers, to be edited; empty unless changes were requested."""
    if page.review.state != ReviewState.CHANGES_REQUESTED:
        return {}
    before = page.release.dossier_fields
    return {"dossier": DossierForms(page.screen.request.POST or None, before)}
