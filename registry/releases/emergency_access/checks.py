"""Preconditions of emergency access, and the people excluded from it."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from governance.english import counted
from governance.errors import WrongState
from governance.principals import service_principal
from governance.reviews.checklist import CheckOutcome
from governance.reviews.models import Review
from registry.incidents.reach import check_not_suspended
from registry.releases.checklist import files_match, origin_signed
from registry.releases.emergency_access.force import UNDER_REVIEW
from registry.releases.emergency_access.models import EmergencyAccess, EmergencyAccessState
from registry.releases.emergency_access.selectors import overdue_review
from registry.releases.emergency_access.states import emergency_access_close, emergency_access_lapse
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import release_review
from registry.releases.serving import check_dossier, check_trusted
from registry.versions.selectors import base_chain

CONFIRM_WITHIN = timedelta(hours=1)


def check_possible(release: Release) -> Review:
    """Return the review of a release for which emergency access is possible.

    Raises:
        WrongState: it is not under review, or fails a check that an emergency cannot excuse.
    """
    if release.state not in UNDER_REVIEW:
        raise WrongState(
            f"Release {release.pk} is {ReleaseState(release.state).label.lower()}; emergency "
            "access is only for releases under review.",
            hint="Submit the version for release.",
        )
    review = release_review(release)
    if review is None:
        raise WrongState(f"Release {release.pk} has no review; it cannot use emergency access.")
    check_trusted(release.version, "served")
    check_not_suspended(release.version, "served")
    check_dossier(release)
    chain = [release.version, *base_chain(release.version)]
    for outcome, note in (files_match(chain), origin_signed(chain)):
        if outcome is not CheckOutcome.PASSED:
            raise WrongState(
                f"Emergency access is not possible for release {release.pk}: {note}",
                code="never_excused",
                hint="Bytes and origin must always be correct.",
            )
    if (overdue := overdue_review(release)) is not None:
        raise WrongState(
            f"Department {release.department.slug} cannot use emergency access again: the review "
            f"of its emergency access {overdue.pk} is overdue.",
            code="after_review_overdue",
            hint="A reviewer who neither requested nor confirmed it must review it first.",
        )
    return review


def check_none_open(release: Release) -> None:
    """Raise WrongState if one is requested or in force; first close one whose time is over."""
    rows = EmergencyAccess.objects.select_for_update(of=("self",)).select_related("department")
    states = (EmergencyAccessState.REQUESTED, EmergencyAccessState.ACTIVE)
    emergency = rows.filter(release=release, state__in=states).first()
    if emergency is None:
        return
    now = timezone.now()
    if (
        emergency.state == EmergencyAccessState.REQUESTED
        and emergency.asked_at + CONFIRM_WITHIN <= now
    ):
        emergency_access_lapse(service_principal("controller"), emergency)
    elif emergency.ends_at is not None and emergency.ends_at <= now:
        emergency_access_close(
            actor=service_principal("controller"),
            emergency=emergency,
            reason=f"Its {counted(emergency.hours, 'hour')} ended.",
            at=emergency.ends_at,
        )
    else:
        raise WrongState(
            f"Emergency access {emergency.pk} to release {release.pk} is already "
            f"{emergency.state}; a second one was not requested."
        )


def check_requested(emergency: EmergencyAccess) -> None:
    """Raise WrongState unless it still awaits confirmation."""
    if emergency.state != EmergencyAccessState.REQUESTED:
        raise WrongState(
            f"Emergency access {emergency.pk} is "
            f"{EmergencyAccessState(emergency.state).label.lower()}; it cannot be confirmed."
        )
    if emergency.asked_at + CONFIRM_WITHIN <= timezone.now():
        raise WrongState(
            f"Emergency access {emergency.pk} was requested over an hour ago; it cannot be "
            "confirmed.",
            hint="Request it again.",
        )


def check_same_dossier(release: Release, emergency: EmergencyAccess) -> None:
    """Raise WrongState if the release's dossier is not the one of the request."""
    if emergency.dossier_digest != release.dossier_digest:
        raise WrongState(
            f"Emergency access {emergency.pk} is for {emergency.dossier_digest[:12]}…, and "
            f"release {release.pk} has {release.dossier_digest[:12]}… now; it was not confirmed.",
            code="digest_mismatch",
            hint="Request it again for the current dossier.",
        )


def separation(emergency: EmergencyAccess, person_id: int | None, doing: str) -> str:
    """Return the reason that this person may not `confirm` or `review` it; empty if they may."""
    if person_id == emergency.asked_by_id:
        return f"requested emergency access {emergency.pk} and may not {doing} it"
    if doing == "review" and person_id == emergency.confirmed_by_id:
        return f"confirmed emergency access {emergency.pk} and may not {doing} it"
    if person_id in emergency.excluded_people:
        return f"had a part in what emergency access {emergency.pk} releases and may not {doing} it"
    return ""
