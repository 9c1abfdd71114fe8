"""The tabs on what is under review: what changed, and the evidence."""

from __future__ import annotations

from typing import Any

from assay.portal.comparison import subject_of
from assay.portal.reviewing.parts import Page
from assay.portal.reviewing.sides import sides_of

# Without what is drawn already, which may be long.
RECORDED = ("metrics", "intervals", "baseline", "baseline_name", "slices", "sample_size")


def changed(page: Page) -> dict[str, Any]:
    """The version with its evidence, compared with what serves now."""
    subject = subject_of(page.actor, page.release)
    given = page.screen.request.GET
    blind = given.get("blind") == "1"
    reveal = blind and given.get("reveal") == "1"
    shown: list[dict[str, Any]] = []
    if page.tab == "evidence":
        shown = [
            {
                "drawn": drawn,
                "recorded": {name: getattr(drawn.evaluation, name) for name in RECORDED},
                "sides": sides_of(
                    drawn.measured, person_id=page.actor.person_id, blind=blind, reveal=reveal
                ),
            }
            for drawn in subject.evidence
        ]
    return {
        "subject": subject,
        "evidence_count": len(subject.evidence),
        "blind": blind,
        "reveal": reveal,
        "side_by_side": shown,
    }
