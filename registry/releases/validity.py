"""Validity of approvals: duration, warnings before the end, and the grace period after it."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from governance.audit.services import audit_record
from governance.english import counted
from governance.principals import Principal, background, service_principal
from registry.releases.conditions import Conditions
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import releases_visible_to, serves_until
from registry.releases.states import release_set_state
from registry.releases.terms import terms_of
from registry.resources import release_subject
from registry.versions.hosted import check_provider_runs, hosted_of

# Warnings in one transaction; the controller runs this every two seconds.
_BATCH = 100
EXPIRING = "release:expiring"
IN_GRACE = "release:in_grace"


def approve(release: Release, agreed: Conditions, waived_until: datetime | None = None) -> None:
    """Set the terms of approval on a locked release; the caller saves it. The approval ends at the
    latest with the first of its waivers, then without a grace period, and all serving at the latest
    when the provider of a hosted model ends it.

    Raises:
        WrongState: the provider has ended it.
    """
    terms, now = terms_of(release), timezone.now()
    hosted = hosted_of(release.version)
    provider_ends = hosted.ends_at if hosted is not None else None
    check_provider_runs(hosted)
    release.approved_at = now
    release.expires_at = now + timedelta(days=terms.valid_days)
    release.grace_days = terms.grace_days
    release.conditions = agreed.to_json()
    ends = (agreed.until, waived_until, provider_ends)
    earlier_end = min((end for end in ends if end is not None), default=None)
    if earlier_end is not None and earlier_end <= release.expires_at:
        release.expires_at, release.grace_days = earlier_end, 0
    if provider_ends is not None:
        left = (provider_ends - release.expires_at) // timedelta(days=1)
        release.grace_days = min(release.grace_days, left)
    release.warns_at = _next_warning(release, now)


def _next_warning(release: Release, now: datetime) -> datetime | None:
    """Return the time of the next warning: days before the end, and at the end if grace follows.

    No warning precedes the approval: a release approved for a week gets none for thirty days.
    """
    if release.expires_at is None or release.approved_at is None:
        return None
    end = release.expires_at
    moments = [end - timedelta(days=days) for days in terms_of(release).warn_days]
    if release.grace_days:
        moments.append(end)
    later = [moment for moment in moments if moment > max(now, release.approved_at)]
    return min(later, default=None)


def releases_warn_due() -> int:
    """Record each due warning once; return their number.

    If several of a release are due at once, as after an outage, only the last is recorded.
    """
    now = timezone.now()
    with transaction.atomic():
        due = list(
            Release.objects.select_for_update(of=("self",), skip_locked=True)
            .select_related("department", "version")
            .filter(state=ReleaseState.APPROVED, warns_at__lte=now)
            .order_by("warns_at")[:_BATCH]
        )
        for release in due:
            _warn(release, now)
    return len(due)


def _warn(release: Release, now: datetime) -> None:
    ends, stops = release.expires_at, release.serves_until
    release.warns_at = _next_warning(release, now)
    release.save(update_fields=["warns_at"])
    if ends is None or stops is None or stops <= now:
        return
    over = ends <= now
    reason = f"Its approval ends on {ends:%Y-%m-%d %H:%M} UTC."
    if over:
        reason = (
            f"Its approval ended on {ends:%Y-%m-%d %H:%M} UTC; what serves under it goes on until "
            f"{stops:%Y-%m-%d %H:%M} UTC."
        )
    with background(f"release-{release.pk}", service_principal("controller")):
        audit_record(
            actor=service_principal("controller"),
            action=IN_GRACE if over else EXPIRING,
            subject=release_subject(release),
            reason=reason,
            department=release.department.slug,
            data={
                "expires_at": ends.isoformat(),
                "serves_until": stops.isoformat(),
                "days": max(0, -(-(ends - now) // timedelta(days=1))),
                "version": release.version.digest,
            },
        )


def releases_expiring(
    actor: Principal | None = None, *, within_days: int = 30
) -> QuerySet[Release]:
    """Return releases whose approval ends within these days or has ended, and which may still
    serve; the first to stop comes first. Without `actor`, all of them, for the platform's own use.
    Releases whose renewal is approved are left out.
    """
    rows = (
        Release.objects.select_related("version__model", "department")
        if actor is None
        else releases_visible_to(actor)
    )
    now = timezone.now()
    return (
        rows.filter(state=ReleaseState.APPROVED, expires_at__lte=now + timedelta(days=within_days))
        .annotate(stops_at=serves_until())
        .filter(stops_at__gt=now)
        .exclude(renewals__state=ReleaseState.APPROVED)
        .order_by("stops_at", "pk")
    )


def releases_expire_due() -> int:
    """Move every approved release whose time is over to `expired`; return their number.

    `release_servable` refuses them in time, even before this runs.
    """
    now = timezone.now()
    with transaction.atomic():
        due = list(
            Release.objects.select_for_update(of=("self",), skip_locked=True)
            .select_related("department", "version")
            .annotate(stops_at=serves_until())
            .filter(state__in=(ReleaseState.APPROVED, ReleaseState.SUSPENDED), stops_at__lte=now)
        )
        for release in due:
            grace = (
                f", with {counted(release.grace_days, 'day')} of grace"
                if release.grace_days
                else ""
            )
            release_set_state(
                actor=service_principal("controller"),
                release=release,
                state=ReleaseState.EXPIRED,
                reason=f"Approved until {release.expires_at:%Y-%m-%d %H:%M} UTC{grace}.",
            )
    return len(due)
