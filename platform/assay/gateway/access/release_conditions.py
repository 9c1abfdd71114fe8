"""The conditions of a release that the gateway enforces, computed once for each snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from email.utils import format_datetime

from governance.quotas.kinds import release_limit_subject
from governance.quotas.wire import Limit
from registry.releases.conditions import Conditions
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.models import Release

RATE = "requests_per_minute"
# Period before the end of an approval in which answers announce it.
NOTICE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class ActiveConditions:
    """Conditions in force. `only`: permitted departments, empty for all. `obstacle`: the reason why
    the release may not serve."""

    only: frozenset[str] = frozenset()
    limits: tuple[Limit, ...] = ()
    limits_of: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    obstacle: str = ""


def active_conditions(release: Release) -> ActiveConditions:
    """Return the conditions for each request to a deployment of `release`."""
    if not release.conditions:
        return ActiveConditions()
    try:
        conditions = Conditions.from_json(release.conditions)
        whole, by_department = conditions.requests_per_minute, conditions.requests_per_minute_of
        return ActiveConditions(
            frozenset(conditions.departments),
            () if whole is None else (_limit(release, "", whole),),
            {slug: (_limit(release, slug, rate),) for slug, rate in by_department.items()},
        )
    except (AttributeError, TypeError, ValueError):
        # Conditions in this form were never approved, so refuse; other deployments are unaffected.
        return ActiveConditions(obstacle=f"The conditions of release {release.pk} cannot be read.")


def _limit(release: Release, department: str, rate: int) -> Limit:
    return Limit(release_limit_subject(release.pk, department), RATE, int(rate))


def end_notice(release: Release) -> tuple[tuple[tuple[bytes, bytes], ...], float]:
    """Return headers that announce the end of the approval and of serving (RFC 8594), and the time
    from which they are sent, in seconds since the epoch."""
    ends, stops = release.expires_at, release.serves_until
    if ends is None or stops is None:
        return (), 0.0
    headers = (
        (b"x-assay-release-expires", ends.isoformat(timespec="seconds").encode()),
        (b"sunset", format_datetime(stops.astimezone(UTC), usegmt=True).encode()),
    )
    return headers, (ends - NOTICE).timestamp()


def emergency_access_notice(emergency: EmergencyAccess) -> tuple[tuple[bytes, bytes], ...]:
    """Return the header that tells callers of emergency access (no review yet), and its end."""
    if emergency.ends_at is None:
        return ()
    ends = emergency.ends_at.astimezone(UTC).isoformat(timespec="seconds")
    return ((b"x-assay-emergency-access", f"until {ends}".encode()),)
