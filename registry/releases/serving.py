"""The rule for everything that serves.

Gateways, engine workers and the controller all ask `serving_verdicts`, which alone decides.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from governance.errors import WrongState
from governance.reviews.models import ChecklistState, ReviewState
from governance.rowsecurity import lifted
from registry.incidents.reach import refuse_suspended
from registry.releases.conditions import conditions_recorded
from registry.releases.emergency_access.force import emergency_access_of
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.equivalence.standing import Standing, standing_in
from registry.releases.models import Release, ReleaseState
from registry.releases.serving_facts import NOTHING_NAMED, DossierFacts, ServingFacts
from registry.releases.software import CODE_DIFFERS, code_difference
from registry.versions.models import ModelVersion, VersionState
from registry.versions.selectors import base_chain

logger = logging.getLogger(__name__)
# Beginning of the refusal with code `CODE_DIFFERS`; takes the release's ID.
OTHER_CODE = "Release {} was approved with other code"


@dataclass(frozen=True, slots=True)
class ServingVerdict:
    """Verdict on one release. It may serve when `refusal` is None, and until `until` at most.

    `readable` is False for a row that cannot be read, which may not serve. `emergency` is the
    emergency access by which it serves. `dossier` has the facts of its dossier.
    """

    refusal: WrongState | None = None
    until: datetime | None = None
    emergency: EmergencyAccess | None = None
    readable: bool = True
    dossier: DossierFacts = NOTHING_NAMED

    @property
    def final(self) -> bool:
        """Return true if serving ends for good. Rows that cannot be read, and software that
        differs here, only end it temporarily."""
        return self.refusal is not None and self.refusal.code not in _FOR_NOW

    @property
    def loadable(self) -> bool:
        """Return true if a worker may load it, to serve or to compare its answers first."""
        return self.refusal is None or self.refusal.code == COMPARISON_DUE


@lifted()
def serving_verdicts(
    releases: Collection[Release], *, environments: Mapping[str, str] | None = None
) -> dict[int, ServingVerdict]:
    """Apply the one rule to each of `releases`, by ID, in a fixed number of queries.

    A release may serve if its review approved it, or if two persons approved its dossier for some
    hours (emergency access). In both cases, this approval must not be over; neither its version nor
    a base may be recalled or suspended by an incident; its dossier must name exactly these bytes,
    these users and the packages of its task that this process runs; and its conditions must be
    exactly those of its approvals.

    With `environments`, the fingerprints of a worker's software by engine, the rule applies to that
    worker: the release's answers there must be those of its dossier, or the verdict states that
    they must be compared first.

    Raises:
        django.db.Error: the database does not answer. An unreadable row raises no error.
    """
    facts = ServingFacts.read(releases, environments)
    return {release.pk: _verdict(release, facts, environments) for release in releases}


def release_servable(release: Release) -> None:
    """Check that `release` may serve now.

    Raises:
        WrongState: it may not; the sentence says why.
    """
    refusal = serving_verdicts([release])[release.pk].refusal
    if refusal is not None:
        raise refusal


def release_startable(release: Release) -> None:
    """Check that something may begin to serve under `release`: it may serve, and its approval is
    not over. During the grace period, only existing deployments go on.

    Raises:
        WrongState: as `release_servable`, or it is in its grace period.
    """
    refusal = startable_refusals([release])[release.pk]
    if refusal is not None:
        raise refusal


def startable_refusals(releases: Collection[Release]) -> dict[int, WrongState | None]:
    """Return for each of `releases`, by ID, why nothing new may serve under it; None if it may."""
    verdicts = serving_verdicts(releases)
    return {
        release.pk: verdicts[release.pk].refusal or _grace_refusal(release) for release in releases
    }


def _grace_refusal(release: Release) -> WrongState | None:
    if release.in_grace:
        return WrongState(
            f"The approval of release {release.pk} ended on {release.expires_at:%Y-%m-%d}; what "
            f"serves under it goes on until {release.serves_until:%Y-%m-%d %H:%M} UTC, and nothing "
            "new is deployed under it.",
            code="release_in_grace",
            hint="Submit it again for another approval.",
        )
    return None


def _verdict(
    release: Release, facts: ServingFacts, environments: Mapping[str, str] | None
) -> ServingVerdict:
    emergency = until = None
    dossier = facts.dossiers.get(release.pk, NOTHING_NAMED)
    try:
        emergency = emergency_access_of(release, facts.emergencies.get(release.pk, ()))
        until = release.serves_until if emergency is None else emergency.ends_at
        _judge(release, facts, emergency)
        if environments is not None:
            _check_upgrade(release, dossier, environments, facts.compared.get(release.pk, ()))
    except WrongState as error:
        return ServingVerdict(
            error, until, emergency, readable=error.code != _UNREADABLE, dossier=dossier
        )
    except Exception as error:
        # An unreadable row must not prevent verdicts on the others.
        logger.exception("Release %s cannot be judged; it does not serve", release.pk)
        return ServingVerdict(
            _unreadable(release, f"{type(error).__name__}: {error}"), readable=False
        )
    return ServingVerdict(until=until, emergency=emergency, dossier=dossier)


def _judge(release: Release, facts: ServingFacts, emergency: EmergencyAccess | None) -> None:
    version = release.version
    if emergency is None:
        _check_approved(release)
    _check_chain(version, facts.bases[version.pk], "served")
    refuse_suspended(version, facts.suspended.get(version.pk), "served")
    dossier = facts.dossiers[release.pk]
    _check_dossier(release, dossier)
    _check_scope(release, dossier, facts.departments.get(release.pk, []))
    _check_code(release, dossier)
    if emergency is None:
        _check_review(release, facts)


_UNREADABLE = "release_unreadable"
COMPARISON_DUE, SUSPENDED_HERE = "comparison_due", "suspended_after_upgrade"
_FOR_NOW = frozenset({_UNREADABLE, CODE_DIFFERS, COMPARISON_DUE, SUSPENDED_HERE})


def _refused(sentence: str, hint: str = "") -> WrongState:
    return WrongState(f"{sentence}; it may not serve.", code="release_not_servable", hint=hint)


def _unreadable(release: Release, fault: str) -> WrongState:
    return WrongState(
        f"Release {release.pk} cannot be read ({fault[:200]}); it may not serve.",
        code=_UNREADABLE,
        hint="Its row differs from what Assay writes; compare it with the audit log.",
    )


def _check_approved(release: Release) -> None:
    """Raise WrongState if it is not approved, or its time is over."""
    if release.state != ReleaseState.APPROVED:
        raise _refused(
            f"Release {release.pk} is {release.get_state_display().lower()}",
            "Only an approved release serves.",
        )
    end = release.serves_until
    if end is None:
        raise _refused(f"Release {release.pk} has no end")
    if end <= timezone.now():
        grace = ", and its grace is over" if release.grace_days else ""
        raise _refused(
            f"Release {release.pk} expired on {release.expires_at:%Y-%m-%d}{grace}",
            "Submit the version for release again.",
        )


def check_dossier(release: Release) -> None:
    """Raise WrongState if the dossier does not have its digest, or names other bytes."""
    _check_dossier(release, DossierFacts.of(release.dossier))


def _check_dossier(release: Release, dossier: DossierFacts) -> None:
    if dossier.digest != release.dossier_digest and dossier.digest:
        raise _refused(
            f"The dossier of release {release.pk} does not have the digest that was approved"
        )
    if dossier.fault:
        raise _unreadable(release, dossier.fault)
    if dossier.version_digest != release.version.digest:
        raise _refused(
            f"The dossier of release {release.pk} names {dossier.version_digest[:12]}, not "
            f"{release.version.digest[:12]}"
        )


def _check_scope(release: Release, dossier: DossierFacts, departments: list[str]) -> None:
    """Raise WrongState if place, engine or users of the row and of its dossier differ."""
    present = {
        "environment": release.environment,
        "deployment_name": release.deployment_name,
        "departments": sorted(departments),
        "visibility": release.visibility,
        "engine": release.engine,
        "precision": release.precision,
    }
    for name, value in present.items():
        if value != (dossier.scope or {})[name]:
            raise _refused(
                f"Release {release.pk} was approved with other {name.replace('_', ' ')} than it "
                "has now",
                "Submit the version for release again.",
            )


def _check_code(release: Release, dossier: DossierFacts) -> None:
    """Raise WrongState if this process runs other packages of the task than the dossier names."""
    task = release.version.model.task
    if difference := code_difference(task, dossier.code, dossier.packages):
        raise WrongState(
            f"{OTHER_CODE.format(release.pk)}: {difference}. It may not serve.",
            code=CODE_DIFFERS,
            hint="Install the packages that the dossier names and start Assay's processes again, "
            "or submit the release again; its review shows what changed.",
        )


def _check_upgrade(
    release: Release,
    dossier: DossierFacts,
    environments: Mapping[str, str],
    outcomes: Collection[str],
) -> None:
    """Raise WrongState unless the release may serve with the software of the worker."""
    standing = standing_in(dossier.upgrades, environments.get(release.engine, ""), outcomes)
    if standing is Standing.DUE:
        raise WrongState(
            f"Release {release.pk} was not compared yet with the software of this worker; until "
            "then it may not serve here.",
            code=COMPARISON_DUE,
        )
    if standing is Standing.REFUSED:
        raise WrongState(
            f"Release {release.pk} is suspended with the software of this worker: its answers "
            "differ from those of its dossier, or cannot be compared with any.",
            code=SUSPENDED_HERE,
            hint="Install the software of the dossier, or evaluate the version here and submit it "
            "for release again.",
        )


def _check_review(release: Release, facts: ServingFacts) -> None:
    """Raise WrongState unless the recorded votes approve exactly this dossier."""
    review, standing = facts.reviews.get(release.pk), facts.standing(release)
    if (
        review is None
        or standing is None
        or review.state != ReviewState.APPROVED
        or review.digest != release.dossier_digest
        or standing.missing
    ):
        raise _refused(f"Release {release.pk} has no review that approves its dossier")
    for item in standing.blocking:
        waived = item.state == ChecklistState.WAIVED
        why = "waived, and the waiver has ended" if waived else f"{item.get_state_display()}"
        raise _refused(
            f"Release {release.pk} was approved with “{item.title}” {why.lower()}",
            "Submit the version for release again.",
        )
    if release.conditions != conditions_recorded(review):
        raise _refused(
            f"The conditions of release {release.pk} are not those of its approvals",
            "Submit the version for release again.",
        )


@lifted()
def check_trusted(version: ModelVersion, verb: str) -> None:
    """Raise WrongState if `version` or one of its bases is recalled."""
    _check_chain(version, base_chain(version), verb)


def _check_chain(version: ModelVersion, bases: list[ModelVersion], verb: str) -> None:
    for each in (version, *bases):
        if each.state != VersionState.TRUSTED:
            raise WrongState(f"{each} is {each.state}; {version} cannot be {verb}.")
