"""Voiding: a release under review ends when something changes that its dossier covers.

An approval applies to a dossier, and an outdated dossier cannot be approved. Services that change
its facts call this module in their transaction: the release and its review are voided, and state
the change. The department submits again. While changes are requested, only a change of the review
policy voids, since the answer freezes a new dossier but the review keeps its policy version.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from governance.policy.decisions import Authorization
from governance.principals import Principal, service_principal
from governance.reviews.policies.models import ReviewPolicy
from governance.reviews.policies.selectors import review_policy_in_force
from governance.reviews.states import reviews_void
from governance.rowsecurity import lifted
from registry.evaluations.models import Gate
from registry.releases.live import release_live
from registry.releases.models import Release, ReleaseState
from registry.releases.software import code_changed
from registry.releases.states import releases_move

# Releases read at a time, each with its dossier.
_SWEPT = 100
UNDER_REVIEW = (ReleaseState.IN_REVIEW, ReleaseState.CHANGES_REQUESTED)


def releases_void_stale(
    *, actor: Principal, decision: Authorization | None = None, wait: bool = True, **which: Any
) -> list[Release]:
    """Void releases under review that match `which` and whose dossier is outdated; return them.
    The caller has authorized the change, in the same transaction.

    Without `wait`, rows that another transaction has locked are left to it and to the controller's
    sweep. Callers that already hold rows of releases use this to avoid deadlocks.
    """
    with transaction.atomic(), lifted():
        if wait:
            # Lock rows that the change refers to now, not at the commit: versions before releases,
            # as in a recall.
            connection.check_constraints()
        rows = (
            Release.objects.select_for_update(of=("self",), skip_locked=not wait)
            .select_related("department", "version__model")
            .filter(state__in=UNDER_REVIEW, **which)
            .order_by("pk")
        )
        return [release for release in rows if _voided(actor, release, decision)]


def release_deployed(
    *, actor: Principal, release: Release, decision: Authorization | None = None
) -> None:
    """Record that the release became live, and void releases that were to replace the former one.

    For the context of deployments, which has authorized that and holds the release's row, in its
    transaction.
    """
    Release.objects.filter(pk=release.pk).update(deployed_at=timezone.now())
    releases_void_stale(
        actor=actor,
        decision=decision,
        wait=False,
        environment=release.environment,
        deployment_name=release.deployment_name,
    )


def releases_void_due() -> int:
    """Void outdated releases that were locked before, as a sweep of the controller; return their
    number. Searches without locks, so that decisions do not wait, and locks only the results.
    """
    with lifted():
        rows = Release.objects.filter(state__in=UNDER_REVIEW).select_related("version__model")
        rows = rows.defer("version__manifest", "version__card")
        stale = [release.pk for release in rows.iterator(_SWEPT) if stale_because(release)]
    if not stale:
        return 0
    controller = service_principal("controller")
    return len(releases_void_stale(actor=controller, wait=False, pk__in=stale))


def review_policy_activated(
    actor: Principal, policy: ReviewPolicy, decision: Authorization | None
) -> None:
    """Void releases under review when another version of their review policy is in force."""
    releases_void_stale(actor=actor, decision=decision, tier=policy.name)


def _voided(actor: Principal, release: Release, decision: Authorization | None) -> bool:
    because = stale_because(release)
    if not because:
        return False
    Release.objects.filter(pk=release.pk).update(voided_because=because)
    release.voided_because = because
    moved = releases_move(
        actor=actor,
        releases=[release],
        to=ReleaseState.VOIDED,
        reason=because,
        decision=decision,
    )
    reviews_void(
        actor=actor,
        subject_type="release",
        subject_ids=[str(each.pk) for each in moved],
        reason=because,
        decision=decision,
    )
    return bool(moved)


@lifted()
def stale_because(release: Release) -> str:
    """Describe the changes since the dossier was frozen, of everything that it covers; empty if
    there are none. Recalled bytes are handled elsewhere (`check_trusted`).
    """
    changes = [_policy_changed(release)]
    if release.state == ReleaseState.IN_REVIEW:
        changes += [
            _measured_again(release),
            _gate_changed(release),
            _another_live(release),
            _code_changed(release),
        ]
    return " ".join(filter(None, changes))[:500]


def _policy_changed(release: Release) -> str:
    frozen = release.dossier.get("review_policy")
    if not frozen:
        return ""
    present = review_policy_in_force(frozen["name"])
    if present is not None and present.digest == frozen["digest"]:
        return ""
    now = f"now it is version {present.version}" if present else "now there is none"
    return f"Review policy {frozen['name']} {frozen['version']} was in force; {now}."


def _measured_again(release: Release) -> str:
    frozen = Counter(each["digest"] for each in release.dossier.get("evaluations", ()))
    rows = list(release.version.evaluations.values_list("digest", "details__drift"))
    later = Counter(digest for digest, _ in rows) - frozen
    # A canary evaluation that confirms the first one changes no basis of the decision.
    if later.keys() <= {digest for digest, drift in rows if drift and not drift["metrics"]}:
        return ""
    return f"{release.version} was evaluated again since the dossier was frozen."


def _code_changed(release: Release) -> str:
    difference = code_changed(release)
    return f"{difference}." if difference else ""


def _gate_changed(release: Release) -> str:
    measured_on = {each["dataset"] for each in release.dossier.get("evaluations", ())}
    gate = (
        Gate.objects.filter(
            model=release.version.model_id,
            dataset__name__in=measured_on,
            created_at__gt=release.frozen_at,
        )
        .select_related("model", "dataset")
        .first()
    )
    return f"A gate was set since the dossier was frozen: {gate}." if gate else ""


def _another_live(release: Release) -> str:
    """Describe a change of the live release; empty without one. If the former one only expired or
    was suspended by an incident, and no release replaced it, reviewers still compare with it: the
    release under review may be its renewal, or the remedy.
    """
    frozen = release.dossier.get("replaces")
    live = release_live(release.environment, release.deployment_name)
    before: int | None = frozen["release"] if frozen else None
    now = live.pk if live else None
    if before == now or (before and not _came_since(release, live) and _paused(before)):
        return ""
    was = f"release {before}" if before else "nothing"
    present = f"release {now}" if now else "nothing"
    return (
        f"It was to replace {was} as {release.deployment_name} in {release.environment}; what is "
        f"live there now is {present}."
    )


def _came_since(release: Release, live: Release | None) -> bool:
    """Return true if the live release became live after the dossier was frozen."""
    taken = live and (live.deployed_at or live.approved_at)
    return bool(taken and taken > release.frozen_at)


def _paused(release_id: int) -> bool:
    states = (ReleaseState.APPROVED, ReleaseState.EXPIRED, ReleaseState.SUSPENDED)
    return Release.objects.filter(pk=release_id, state__in=states).exists()
