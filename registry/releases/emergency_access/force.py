"""Check for emergency access in force, and for the end of serving."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.utils import timezone

from registry.releases.emergency_access.models import EmergencyAccess, EmergencyAccessState
from registry.releases.models import Release, ReleaseState

UNDER_REVIEW = (ReleaseState.IN_REVIEW, ReleaseState.CHANGES_REQUESTED)


def emergency_access_in_force(
    release: Release, now: datetime | None = None
) -> EmergencyAccess | None:
    """Return the emergency access to exactly the dossier that `release` has now, confirmed by a
    second person and not over. Reads `release.emergency_accesses`, which may be prefetched."""
    if release.state not in UNDER_REVIEW:
        return None
    return emergency_access_of(release, release.emergency_accesses.all(), now)


def emergency_access_of(
    release: Release, emergencies: Iterable[EmergencyAccess], now: datetime | None = None
) -> EmergencyAccess | None:
    """Return the same as `emergency_access_in_force`, from these accesses of `release`."""
    if release.state not in UNDER_REVIEW:
        return None
    now = now or timezone.now()
    for emergency in emergencies:
        if (
            emergency.state == EmergencyAccessState.ACTIVE
            and emergency.dossier_digest == release.dossier_digest
            and emergency.confirmed_by_id not in (None, emergency.asked_by_id)
            and emergency.ends_at is not None
            and emergency.ends_at > now
        ):
            return emergency
    return None


def serving_end(release: Release) -> datetime | None:
    """Return the end of serving under `release`: the end of its approval with its grace period,
    or of emergency access in force; None if it may not serve."""
    if release.state == ReleaseState.APPROVED:
        return release.serves_until
    emergency = emergency_access_in_force(release)
    return None if emergency is None else emergency.ends_at
