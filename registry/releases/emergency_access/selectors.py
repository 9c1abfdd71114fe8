"""Reads of emergency access."""

from __future__ import annotations

from django.db.models import F, QuerySet
from django.utils import timezone

from governance.errors import NotFound, WrongState
from governance.principals import Principal
from governance.rowsecurity import lifted
from registry.releases.emergency_access.models import EmergencyAccess, EmergencyAccessState
from registry.releases.emergency_access.states import USED
from registry.releases.models import Release
from registry.releases.selectors import releases_visible_to


def emergency_accesses_visible_to(actor: Principal) -> QuerySet[EmergencyAccess]:
    """Return emergency accesses to releases that `actor` may see, newest first."""
    return EmergencyAccess.objects.select_related(
        "release__version__model",
        "department",
        "asked_by",
        "confirmed_by",
        "ended_by",
        "reviewed_by",
    ).filter(release__in=releases_visible_to(actor).order_by().values("pk"))


def emergency_access_get(*, actor: Principal, id: int) -> EmergencyAccess:  # noqa: A002
    """Return one; raise NotFound if it does not exist or `actor` may not see its release."""
    emergency = emergency_accesses_visible_to(actor).filter(pk=id).first()
    if emergency is None:
        raise NotFound(f"Emergency access {id} does not exist, or you may not see it.")
    return emergency


def emergency_accesses_active(actor: Principal) -> QuerySet[EmergencyAccess]:
    """Return those in force now, first the one that ends first. If there is none, nearly always
    the case, this costs one small query."""
    in_force = {"state": EmergencyAccessState.ACTIVE, "ends_at__gt": timezone.now()}
    if not EmergencyAccess.objects.filter(**in_force).exists():
        return EmergencyAccess.objects.none()
    return emergency_accesses_visible_to(actor).filter(**in_force).order_by("ends_at")


def emergency_accesses_to_review(actor: Principal) -> QuerySet[EmergencyAccess]:
    """Return those that ended and await their review, the earliest deadline first."""
    rows = emergency_accesses_visible_to(actor).filter(state=EmergencyAccessState.ENDED)
    return rows.order_by(F("due_at").asc(), "pk")


def emergency_accesses_of(release: Release) -> QuerySet[EmergencyAccess]:
    """Return all of one release, which the caller may see, newest first."""
    return EmergencyAccess.objects.filter(release=release).select_related(
        "department", "asked_by", "confirmed_by", "ended_by", "reviewed_by"
    )


@lifted()
def check_withdrawable(release: Release) -> None:
    """Raise WrongState if `release` has served by emergency access, so its review must end."""
    used = EmergencyAccess.objects.filter(release=release, state__in=USED).first()
    if used is not None:
        raise WrongState(
            f"Release {release.pk} has served by emergency access {used.pk}; its review must be "
            "decided before it can be withdrawn.",
            code="served_by_emergency_access",
            hint="To stop serving, end the emergency access or stop the deployment.",
        )


@lifted()
def overdue_review(release: Release) -> EmergencyAccess | None:
    """Return emergency access of the release's department whose review is overdue; until it is
    reviewed, the department cannot use emergency access again."""
    rows = EmergencyAccess.objects.filter(
        department_id=release.department_id,
        state=EmergencyAccessState.ENDED,
        due_at__lte=timezone.now(),
    )
    return rows.order_by("due_at").first()
