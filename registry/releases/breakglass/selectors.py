"""Reading what was and is served by break-glass."""

from __future__ import annotations

from django.db.models import F, QuerySet
from django.utils import timezone

from governance.errors import NotFound, WrongState
from governance.principals import Principal
from governance.rowsecurity import lifted
from registry.releases.breakglass.models import BreakGlass, BreakGlassState
from registry.releases.breakglass.states import USED
from registry.releases.models import Release
from registry.releases.selectors import releases_visible_to


def break_glasses_visible_to(actor: Principal) -> QuerySet[BreakGlass]:
    """Those of releases that `actor` may see, the newest first."""
    return BreakGlass.objects.select_related(
        "release__version__model",
        "department",
        "asked_by",
        "confirmed_by",
        "ended_by",
        "reviewed_by",
    ).filter(release__in=releases_visible_to(actor).order_by().values("pk"))


def break_glass_get(*, actor: Principal, id: int) -> BreakGlass:  # noqa: A002
    """Raises NotFound when there is none, or `actor` may not see its release."""
    glass = break_glasses_visible_to(actor).filter(pk=id).first()
    if glass is None:
        raise NotFound(f"Break-glass {id} does not exist, or you may not see it.")
    return glass


def break_glasses_active(actor: Principal) -> QuerySet[BreakGlass]:
    """In force now, the one that ends first at the head. While none is, which is nearly always,
    asking costs one small query."""
    in_force = {"state": BreakGlassState.ACTIVE, "ends_at__gt": timezone.now()}
    if not BreakGlass.objects.filter(**in_force).exists():
        return BreakGlass.objects.none()
    return break_glasses_visible_to(actor).filter(**in_force).order_by("ends_at")


def break_glasses_to_review(actor: Principal) -> QuerySet[BreakGlass]:
    """Ended and not reviewed yet, the most pressing first."""
    rows = break_glasses_visible_to(actor).filter(state=BreakGlassState.ENDED)
    return rows.order_by(F("due_at").asc(), "pk")


def break_glasses_of(release: Release) -> QuerySet[BreakGlass]:
    """All of one release that the actor has been shown, the newest first."""
    return BreakGlass.objects.filter(release=release).select_related(
        "department", "asked_by", "confirmed_by", "ended_by", "reviewed_by"
    )


@lifted()
def check_withdrawable(release: Release) -> None:
    """Raises WrongState when `release` has served by break-glass: its review is decided then."""
    used = BreakGlass.objects.filter(release=release, state__in=USED).first()
    if used is not None:
        raise WrongState(
            f"Release {release.pk} has served by break-glass {used.pk}; its review is decided "
            "before it can be withdrawn.",
            code="served_by_break_glass",
            hint="Ending the break-glass, or stopping the deployment, stops what serves.",
        )


@lifted()
def overdue_review(release: Release) -> BreakGlass | None:
    """A break-glass of the release's department whose review afterward is overdue: until it is
    reviewed, the department breaks no other glass."""
    rows = BreakGlass.objects.filter(
        department_id=release.department_id,
        state=BreakGlassState.ENDED,
        due_at__lte=timezone.now(),
    )
    return rows.order_by("due_at").first()
