"""Break-glasses as an evidence pack states them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from registry.releases.breakglass.models import BreakGlass

if TYPE_CHECKING:
    from registry.releases.evidence_documents import Names


def emergencies_document(glasses: Iterable[BreakGlass], names: Names) -> list[dict[str, Any]]:
    """Return each emergency access: who requested and confirmed it, of which dossier, from when to
    when, and the verdict of a third person; times in ISO 8601, null for events that have not
    happened.
    """
    return [
        {
            "id": glass.pk,
            "state": glass.state,
            "dossier": glass.dossier_digest,
            "reason": glass.reason,
            "hours": glass.hours,
            "asked_by": names.of(glass.asked_by_id),
            "asked_at": _said(glass.asked_at),
            "confirmed_by": names.of(glass.confirmed_by_id),
            "confirmed_at": _said(glass.confirmed_at),
            "proof": glass.proof,
            "ended_by": names.of(glass.ended_by_id),
            "ended_at": _said(glass.over_at),
            "ended_reason": glass.ended_reason,
            "reviewed_by": names.of(glass.reviewed_by_id),
            "reviewed_at": _said(glass.reviewed_at),
            "verdict": glass.verdict,
            "lessons": glass.lessons,
        }
        for glass in glasses
    ]


def _said(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
