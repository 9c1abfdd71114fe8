"""The check that everything which serves must pass."""

from __future__ import annotations

from django.utils import timezone

from governance.errors import WrongState
from governance.reviews.models import ChecklistState, ReviewState
from governance.reviews.selectors import review_standing
from governance.rowsecurity import lifted
from registry.canonical import json_digest
from registry.incidents.reach import check_not_suspended
from registry.releases.breakglass.force import break_glass_in_force
from registry.releases.conditions import conditions_recorded
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import release_reviews
from registry.versions.models import ModelVersion, VersionState
from registry.versions.selectors import base_chain


@lifted()
def release_servable(release: Release) -> None:
    """The one rule: return when `release` may serve now.

    It is approved, by the votes on its review; or two persons have approved exactly its dossier in
    an emergency, for some hours (break-glass). All else holds for both.

    Raises:
        WrongState: it is not approved, its time is over, its version or what that stands on is
            recalled or suspended by an incident, its dossier does not name exactly these bytes and
            users, no votes on record approve that dossier, or they ask for other conditions. The
            sentence says which.
    """
    emergency = break_glass_in_force(release) is not None
    if not emergency:
        _check_approved(release)
    check_trusted(release.version, "served")
    check_not_suspended(release.version, "served")
    check_dossier(release)
    _check_scope(release)
    if not emergency:
        _check_review(release)


def _check_approved(release: Release) -> None:
    """Raises WrongState when it is not approved, or its time is over."""
    if release.state != ReleaseState.APPROVED:
        raise WrongState(
            f"Release {release.pk} is {release.get_state_display().lower()}; it may not serve.",
            code="release_not_servable",
            hint="Only an approved release serves.",
        )
    end = release.serves_until
    if end is None:
        raise WrongState(f"Release {release.pk} has no end; it may not serve.")
    if end <= timezone.now():
        grace = ", and its grace is over" if release.grace_days else ""
        raise WrongState(
            f"Release {release.pk} expired on {release.expires_at:%Y-%m-%d}{grace}; "
            "it may not serve.",
            code="release_not_servable",
            hint="Submit the version for release again.",
        )


def check_dossier(release: Release) -> None:
    """Raises WrongState when the dossier is not the one of its digest, or is of other bytes."""
    dossier = release.dossier
    if json_digest(dossier) != release.dossier_digest:
        raise WrongState(
            f"The dossier of release {release.pk} does not have the digest that was approved; "
            "it may not serve.",
            code="release_not_servable",
        )
    named = dossier["identity"]["digest"]
    if named != release.version.digest:
        raise WrongState(
            f"The dossier of release {release.pk} names {named[:12]}, not "
            f"{release.version.digest[:12]}; it may not serve.",
            code="release_not_servable",
        )


def _check_scope(release: Release) -> None:
    """Raises WrongState when the row names another place or other users than the dossier."""
    approved = release.dossier["release"]
    present = {
        "environment": release.environment,
        "deployment_name": release.deployment_name,
        "departments": sorted(each.slug for each in release.departments.all()),
        "visibility": release.visibility,
    }
    for name, value in present.items():
        if value != approved[name]:
            raise WrongState(
                f"Release {release.pk} was approved with other {name.replace('_', ' ')} than it "
                "has now; it may not serve.",
                code="release_not_servable",
                hint="Submit the version for release again.",
            )


def _check_review(release: Release) -> None:
    """Raises WrongState unless the votes that are on record approve exactly this dossier."""
    # Asked of everything live every two seconds, by each who serves: without names and notes.
    review = release_reviews(release).first()
    standing = None if review is None else review_standing(review)
    if (
        review is None
        or standing is None
        or review.state != ReviewState.APPROVED
        or review.digest != release.dossier_digest
        or standing.missing
    ):
        raise WrongState(
            f"Release {release.pk} has no review that approves its dossier; it may not serve.",
            code="release_not_servable",
        )
    for item in standing.blocking:
        waived = item.state == ChecklistState.WAIVED
        why = "waived, and the waiver has ended" if waived else f"{item.get_state_display()}"
        raise WrongState(
            f"Release {release.pk} was approved with “{item.title}” {why.lower()}; "
            "it may not serve.",
            code="release_not_servable",
            hint="Submit the version for release again.",
        )
    if release.conditions != conditions_recorded(review):
        raise WrongState(
            f"The conditions of release {release.pk} are not those that its approvals ask for; "
            "it may not serve.",
            code="release_not_servable",
            hint="Submit the version for release again.",
        )


def release_startable(release: Release) -> None:
    """Return when something may begin to serve under `release`: it may serve, and its approval is
    not over. What serves already goes on through the grace.

    Raises:
        WrongState: as `release_servable`, or in its grace.
    """
    release_servable(release)
    if release.in_grace:
        raise WrongState(
            f"The approval of release {release.pk} ended on {release.expires_at:%Y-%m-%d}; what "
            f"serves under it goes on until {release.serves_until:%Y-%m-%d %H:%M} UTC, and nothing "
            "new is deployed under it.",
            code="release_in_grace",
            hint="Submit it again for another approval.",
        )


@lifted()
def check_trusted(version: ModelVersion, verb: str) -> None:
    """Raises WrongState when `version`, or anything that it stands on, is recalled."""
    for each in (version, *base_chain(version)):
        if each.state != VersionState.TRUSTED:
            raise WrongState(f"{each} is {each.state}; {version} cannot be {verb}.")
