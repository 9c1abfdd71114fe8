"""Check that emergency access lets a release serve now, and its end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.utils import timezone

from registry.releases.breakglass.models import BreakGlass, BreakGlassState
from registry.releases.models import Release, ReleaseState

UNDER_REVIEW = (ReleaseState.IN_REVIEW, ReleaseState.CHANGES_REQUESTED)


def break_glass_in_force(release: Release, now: datetime | None = None) -> BreakGlass | None:
    """The emergency approval of exactly the dossier that `release` has now: by two persons, and not
    over. Reads `release.break_glasses`, which a list may have prefetched."""
    if release.state not in UNDER_REVIEW:
        return None
    return break_glass_of(release, release.break_glasses.all(), now)


def break_glass_of(
    release: Release, glasses: Iterable[BreakGlass], now: datetime | None = None
) -> BreakGlass | None:
    """As `break_glass_in_force`, among these break-glasses of `release`."""
    if release.state not in UNDER_REVIEW:
        return None
    now = now or timezone.now()
    for glass in glasses:
        if (
            glass.state == BreakGlassState.ACTIVE
            and glass.dossier_digest == release.dossier_digest
            and glass.confirmed_by_id not in (None, glass.asked_by_id)
            and glass.ends_at is not None
            and glass.ends_at > now
        ):
            return glass
    return None


def serving_end(release: Release) -> datetime | None:
    """When serving under `release` stops as things stand: the end of its approval with its grace,
    or of a break-glass in force; None when neither lets it serve."""
    if release.state == ReleaseState.APPROVED:
        return release.serves_until
    glass = break_glass_in_force(release)
    return None if glass is None else glass.ends_at
