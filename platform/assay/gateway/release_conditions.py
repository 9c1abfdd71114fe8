"""The conditions of a release as the gateway holds them, worked out once for each snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from email.utils import format_datetime

from django.utils import timezone

from governance.quotas.kinds import release_limit_subject
from governance.quotas.wire import Limit
from registry.releases.conditions import Conditions
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.models import Release

RATE = "requests_per_minute"
# How long before the end of an approval callers are told of it.
NOTICE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Held:
    """`only`: the departments that are left; empty for all. `obstacle`: why nothing may serve."""

    only: frozenset[str] = frozenset()
    limits: tuple[Limit, ...] = ()
    limits_of: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    obstacle: str = ""


def held_conditions(release: Release) -> Held:
    """Return the conditions for each request to a deployment of `release`."""
    if not release.conditions:
        return Held()
    try:
        asked = Conditions.from_json(release.conditions)
        whole, each = asked.requests_per_minute, asked.requests_per_minute_of
        return Held(
            frozenset(asked.departments),
            () if whole is None else (_limit(release, "", whole),),
            {slug: (_limit(release, slug, rate),) for slug, rate in each.items()},
        )
    except (AttributeError, TypeError, ValueError):
        # These conditions were never approved like this; other deployments are not affected.
        return Held(obstacle=f"The conditions of release {release.pk} cannot be read.")


def _limit(release: Release, department: str, rate: int) -> Limit:
    return Limit(release_limit_subject(release.pk, department), RATE, int(rate))


def end_notice(release: Release) -> tuple[tuple[bytes, bytes], ...]:
    """Headers once an end is near: when the approval ends, and when serving does (RFC 8594)."""
    ends, stops = release.expires_at, release.serves_until
    if ends is None or stops is None:
        return ()
    if ends - timezone.now() > NOTICE:
        return ()
    return (
        (b"x-assay-release-expires", ends.isoformat(timespec="seconds").encode()),
        (b"sunset", format_datetime(stops.astimezone(UTC), usegmt=True).encode()),
    )


def emergency_access_notice(emergency: EmergencyAccess) -> tuple[tuple[bytes, bytes], ...]:
    """The header that tells callers that no review has approved what answers, and until when."""
    if emergency.ends_at is None:
        return ()
    ends = emergency.ends_at.astimezone(UTC).isoformat(timespec="seconds")
    return ((b"x-assay-emergency-access", f"until {ends}".encode()),)
