"""Transitions of a release."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.db import transaction

from governance.audit.services import AuditEntry, audit_record_many
from governance.database.locks import lock
from governance.notify import notify
from governance.policy.decisions import Authorization
from governance.principals import Principal, background
from governance.reviews.logged_conditions import conditions_logged
from governance.state_machine import StateMachine, transition
from registry.releases.emergency_access.force import UNDER_REVIEW
from registry.releases.emergency_access.states import emergency_accesses_over
from registry.releases.models import Release, ReleaseState
from registry.resources import release_subject

ALLOWED_TRANSITIONS: dict[ReleaseState, frozenset[ReleaseState]] = {
    ReleaseState.IN_REVIEW: frozenset(
        {
            ReleaseState.CHANGES_REQUESTED,
            ReleaseState.APPROVED,
            ReleaseState.REJECTED,
            ReleaseState.WITHDRAWN,
            ReleaseState.RECALLED,
            ReleaseState.VOIDED,
        }
    ),
    ReleaseState.CHANGES_REQUESTED: frozenset(
        {
            ReleaseState.IN_REVIEW,
            ReleaseState.WITHDRAWN,
            ReleaseState.RECALLED,
            ReleaseState.VOIDED,
        }
    ),
    ReleaseState.APPROVED: frozenset(
        {
            ReleaseState.WITHDRAWN,
            ReleaseState.EXPIRED,
            ReleaseState.RECALLED,
            ReleaseState.SUSPENDED,
        }
    ),
    # Suspended by an incident; approved again when the suspension is lifted.
    ReleaseState.SUSPENDED: frozenset(
        {
            ReleaseState.APPROVED,
            ReleaseState.WITHDRAWN,
            ReleaseState.EXPIRED,
            ReleaseState.RECALLED,
        }
    ),
    ReleaseState.REJECTED: frozenset(),
    ReleaseState.WITHDRAWN: frozenset(),
    ReleaseState.EXPIRED: frozenset(),
    ReleaseState.RECALLED: frozenset(),
    ReleaseState.VOIDED: frozenset(),
}
RELEASE_STATES = StateMachine(
    model=Release,
    noun="release",
    table=ALLOWED_TRANSITIONS,
    hint="submit a new release",
    related=("version__model__department", "version__base", "department"),
)
release_locked = RELEASE_STATES.locked
CHANNELS = ("assay:snapshot", "assay:deployments")


def place_locked(release_id: int) -> None:
    """Lock the release's name in its environment until the transaction ends, so that the second of
    two approvals sees what the first made live. Call before locking any row.
    """
    rows = Release.objects.filter(pk=release_id).values_list("environment", "deployment_name")
    for environment, name in rows:
        lock(f"place:{environment}:{name}")


def release_set_state(
    *,
    actor: Principal,
    release: Release,
    state: ReleaseState,
    reason: str,
    decision: Authorization | None = None,
) -> None:
    """Move a locked release, save and audit it, and notify gateways and workers.

    Raises:
        WrongState: the transition is not allowed.
    """
    before = ReleaseState(release.state)
    with background(f"release-{release.pk}", actor):
        RELEASE_STATES.move(
            release,
            state,
            actor=actor,
            action=f"release:{state.value}",
            subject=release_subject(release),
            reason=reason,
            department=release.department.slug,
            data=_facts(release, state),
            decision=decision,
        )
    emergency_accesses_over(
        actor=actor,
        release_ids=[release.pk],
        reason=f"Release {release.pk} is {state.label.lower()}.",
        # An answer creates another dossier; emergency access was for the previous one.
        unless_of=release.dossier_digest if state in UNDER_REVIEW else "",
        decision=decision,
    )
    if ReleaseState.APPROVED in (before, state):
        _places_changed(actor, [release], decision)
    releases_changed()


def releases_move(
    *,
    actor: Principal,
    releases: Iterable[Release],
    to: ReleaseState,
    reason: str,
    decision: Authorization | None = None,
) -> list[Release]:
    """Move all locked releases that may move to this state, in one statement, with an event each;
    return them. The others stay unchanged.
    """
    moved = RELEASE_STATES.save_states(releases, to)
    entries = [
        AuditEntry(
            actor=actor,
            action=f"release:{to.value}",
            subject=release_subject(release),
            reason=reason,
            department=release.department.slug,
            data=transition(ReleaseState(release.state), to) | _facts(release, to),
            decision=decision,
        )
        for release in moved
    ]
    audit_record_many(entries)
    emergency_accesses_over(
        actor=actor,
        release_ids=[release.pk for release in moved],
        reason=reason,
        decision=decision,
    )
    approved = [each for each in moved if ReleaseState.APPROVED in (each.state, to)]
    _places_changed(actor, approved, decision)
    releases_changed()
    return moved


# Contains `releases_void_stale`, whose module imports this one.
_followers: list[Callable[..., object]] = []


def follow_places(follower: Callable[..., object]) -> None:
    """Register `follower` for calls when the live release of an environment and name may change."""
    if follower not in _followers:
        _followers.append(follower)


def _places_changed(
    actor: Principal, releases: Iterable[Release], decision: Authorization | None = None
) -> None:
    """Handle a change of live releases: void releases that were to replace the previous ones.

    The caller holds locks on releases; rows that another process has locked are left to
    the controller's sweep.
    """
    ids = [release.pk for release in releases]
    places = Release.objects.filter(pk__in=ids).values_list("environment", "deployment_name")
    for environment, name in sorted(set(places)):
        for follow in _followers:
            follow(
                actor=actor,
                decision=decision,
                wait=False,
                environment=environment,
                deployment_name=name,
            )


def _facts(release: Release, after: ReleaseState) -> dict[str, Any]:
    """Return the data of the event of a transition to `after`."""
    facts: dict[str, Any] = {"dossier": release.dossier_digest, "version": release.version.digest}
    if after is ReleaseState.APPROVED:
        facts["expires_at"] = release.expires_at and release.expires_at.isoformat()
        facts["grace_days"] = release.grace_days
        facts["conditions"] = conditions_logged(release.conditions)
    return facts


def releases_changed() -> None:
    """Notify gateways and workers after the commit."""
    for channel in CHANNELS:
        transaction.on_commit(lambda channel=channel: notify(channel))  # type: ignore[misc]
