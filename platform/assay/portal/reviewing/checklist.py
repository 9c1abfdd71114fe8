"""The checklist beside the tabs."""

from __future__ import annotations

from typing import Any

from assay.portal.reviewing.parts import Page
from governance.permissions import Action
from governance.reviews.models import ChecklistState


def checklist(page: Page) -> dict[str, Any]:
    """Every item, how many are met, and whether the person may attest one."""
    items = list(page.review.checklist.all())
    deciding = page.is_open and page.may(Action.RELEASE_DECIDE, "release")
    return {
        "checklist": items,
        "met": sum(item.state == ChecklistState.SATISFIED for item in items),
        "may_attest": deciding
        and not page.had_a_part
        and page.may(Action.CHECKLIST_ATTEST, "review"),
    }
