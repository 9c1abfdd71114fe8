"""The tabs on what is under review: what changed, and the evidence."""

from __future__ import annotations

from typing import Any

from assay.portal.comparison import subject_of
from assay.portal.reviewing.parts import Page


def changed(page: Page) -> dict[str, Any]:
    """The version with its evidence, beside what serves now."""
    subject = subject_of(page.actor, page.release)
    return {"subject": subject, "evidence_count": len(subject.evidence)}
