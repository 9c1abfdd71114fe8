"""Preconditions of emergency access, and the people excluded from it."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from governance.errors import WrongState
from governance.principals import service_principal
from governance.reviews.checklist import CheckOutcome
from governance.reviews.models import Review
from registry.incidents.reach import check_not_suspended
from registry.releases.breakglass.force import UNDER_REVIEW
from registry.releases.breakglass.models import BreakGlass, BreakGlassState
from registry.releases.breakglass.selectors import overdue_review
from registry.releases.breakglass.states import break_glass_close, break_glass_lapse
from registry.releases.checklist import files_match, origin_signed
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import release_review
from registry.releases.serving import check_dossier, check_trusted
from registry.versions.selectors import base_chain

CONFIRM_WITHIN = timedelta(hours=1)


def check_possible(release: Release) -> Review:
    """The review of a release that an emergency could let serve.

    Raises:
        WrongState: it is not under review, or something forbids it that cannot be excused.
    """
    if release.state not in UNDER_REVIEW:
        raise WrongState(
            f"Release {release.pk} is {ReleaseState(release.state).label.lower()}; the glass is "
            "broken only for what is under review.",
            hint="Submit the version for release.",
        )
    review = release_review(release)
    if review is None:
        raise WrongState(f"Release {release.pk} has no review; it cannot use break-glass.")
    check_trusted(release.version, "served")
    check_not_suspended(release.version, "served")
    check_dossier(release)
    chain = [release.version, *base_chain(release.version)]
    for outcome, note in (files_match(chain), origin_signed(chain)):
        if outcome is not CheckOutcome.PASSED:
            raise WrongState(
                f"Break-glass is not possible for release {release.pk}: {note}",
                code="never_excused",
                hint="Bytes and origin must always be correct.",
            )
    if (late := overdue_review(release)) is not None:
        raise WrongState(
            f"Department {release.department.slug} has not had its break-glass {late.pk} reviewed, "
            "which is overdue; it cannot use break-glass again.",
            code="after_review_overdue",
            hint="A reviewer who neither requested nor confirmed it must review it first.",
        )
    return review


def check_none_open(release: Release) -> None:
    """Raises WrongState when one is requested or in force; first updates those that are over."""
    rows = BreakGlass.objects.select_for_update(of=("self",)).select_related("department")
    states = (BreakGlassState.REQUESTED, BreakGlassState.ACTIVE)
    glass = rows.filter(release=release, state__in=states).first()
    if glass is None:
        return
    now = timezone.now()
    if glass.state == BreakGlassState.REQUESTED and glass.asked_at + CONFIRM_WITHIN <= now:
        break_glass_lapse(service_principal("controller"), glass)
    elif glass.ends_at is not None and glass.ends_at <= now:
        break_glass_close(
            actor=service_principal("controller"),
            glass=glass,
            reason=f"Its {glass.hours} hours are over.",
            at=glass.ends_at,
        )
    else:
        raise WrongState(
            f"Break-glass {glass.pk} of release {release.pk} is already {glass.state}; "
            "a second one was not requested."
        )


def check_requested(glass: BreakGlass) -> None:
    """Raises WrongState when it is no longer requested."""
    if glass.state != BreakGlassState.REQUESTED:
        raise WrongState(
            f"Break-glass {glass.pk} is {BreakGlassState(glass.state).label.lower()}; it cannot be "
            "confirmed."
        )
    if glass.asked_at + CONFIRM_WITHIN <= timezone.now():
        raise WrongState(
            f"Break-glass {glass.pk} was requested over an hour ago; it cannot be confirmed.",
            hint="Request it again.",
        )


def check_same_dossier(release: Release, glass: BreakGlass) -> None:
    """Raises WrongState when the release has another dossier than was asked about."""
    if glass.dossier_digest != release.dossier_digest:
        raise WrongState(
            f"Break-glass {glass.pk} is about {glass.dossier_digest[:12]}…, and release "
            f"{release.pk} has {release.dossier_digest[:12]}… now; it was not confirmed.",
            code="digest_mismatch",
            hint="Request it again, for the present dossier.",
        )


def separation(glass: BreakGlass, person_id: int | None, doing: str) -> str:
    """Why this person may not `confirm` or `review` it; empty when they may."""
    if person_id == glass.asked_by_id:
        return f"requested break-glass {glass.pk} and may not {doing} it"
    if doing == "review" and person_id == glass.confirmed_by_id:
        return f"confirmed break-glass {glass.pk} and may not {doing} it"
    if person_id in glass.excluded_people:
        return f"had a part in what break-glass {glass.pk} releases and may not {doing} it"
    return ""
