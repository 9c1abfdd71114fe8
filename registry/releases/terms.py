"""How long an approval lasts, and when a review is due."""

from __future__ import annotations

from dataclasses import dataclass

from registry.releases.models import Release


@dataclass(frozen=True, slots=True)
class Terms:
    """Days throughout.

    An approval lasts `valid_days`, and what serves under it goes on for `grace_days` after that.
    `warn_days`, falling, are how long before the end its department is warned. A review is due
    `due_days` after it opens, and is escalated `escalate_days` before that.
    """

    valid_days: int
    grace_days: int
    warn_days: tuple[int, ...]
    due_days: int
    escalate_days: int


_WARN = (30, 7, 1)
_TERMS = {
    "minimal": Terms(365, 14, _WARN, 14, 3),
    "limited": Terms(180, 7, _WARN, 14, 3),
    "general-purpose": Terms(180, 7, _WARN, 10, 3),
    "high": Terms(90, 0, _WARN, 10, 3),
}


def terms_for(tier: str) -> Terms:
    """The terms of a review that opens now."""
    return _TERMS[tier]


def terms_of(release: Release) -> Terms:
    """The terms that `release` is reviewed, or was approved, under."""
    return terms_for(release.tier)
