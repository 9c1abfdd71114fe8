"""Submit a release again: a new request, prefilled, with the attestations that still hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import QuerySet

from governance.database.narrow import narrowed
from governance.errors import DomainError
from governance.people.credentials import with_sign_in_admins
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.models import ChecklistItem
from registry.releases.carrying import (
    Change,
    dossier_changes,
    renewal_obstacle,
    unchanged_items,
)
from registry.releases.models import Release
from registry.releases.risk import checked_risk_answers
from registry.releases.selectors import release_get, release_review, releases_visible_to
from registry.releases.separation import people_behind
from registry.releases.services import dossier_again, release_submit
from registry.releases.serving import check_trusted
from registry.releases.tiers import checked_tier, risk_facts
from registry.resources import acting_person, release_resource

HISTORY_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Preview:
    """Result of submitting `release` again, unchanged. `obstacle` is the reason that this is not
    possible. `anew` are titles of items that a reviewer must attest again.
    """

    release: Release
    obstacle: str = ""
    hint: str = ""
    carried: Sequence[ChecklistItem] = ()
    anew: Sequence[str] = ()
    changes: Sequence[Change] = field(default_factory=tuple)


def renewal_preview(*, actor: Principal, release_id: int) -> Preview:
    """Preview a renewal: items that would be carried over, and changes since the release.

    Raises:
        NotFound: the release does not exist, or the actor may not see it.
        NotPermitted: the actor may not submit it.
    """
    release = release_get(actor=actor, id=release_id)
    decision = authorize(
        actor=actor, action=Action.RELEASE_SUBMIT, resource=release_resource(release)
    )
    submitter = acting_person(actor).pk
    if (obstacle := renewal_obstacle(release)) is not None:
        return Preview(release, obstacle.message, obstacle.hint)
    try:
        check_trusted(release.version, "released")
        answers = checked_risk_answers(release.risk_answers)
        facts = risk_facts(release.version, answers)
        policy = checked_tier(release.tier, facts)
    except DomainError as error:
        return Preview(release, error.message, error.hint)
    dossier = dossier_again(release, policy, decision.policy_version, submitter, answers)
    excluded = people_behind(release.version) | with_sign_in_admins({submitter})
    required = {
        item.code: item for item in policy.document.items_for(facts) if item.kind == "attested"
    }
    carried = [
        item
        for item in unchanged_items(release, release_review(release), dossier)
        if item.attested_by_id not in excluded
        and item.code in required
        and (required[item.code].title, required[item.code].why) == (item.title, item.why)
    ]
    codes = {item.code for item in carried}
    return Preview(
        release,
        carried=carried,
        anew=[item.title for code, item in required.items() if code not in codes],
        changes=dossier_changes(release.dossier, dossier),
    )


def release_renew(
    *,
    actor: Principal,
    release_id: int,
    departments: Sequence[Department] | None = None,
    visibility: str | None = None,
    purpose: str | None = None,
    risk_answers: Mapping[str, Any] | None = None,
    dossier_fields: Mapping[str, Any] | None = None,
    tier: str | None = None,
) -> Release:
    """Submit a release again, as a new one with a fresh dossier; arguments replace values of the
    old one. Reviewers decide anew; attestations that depend on nothing changed are carried over.

    Raises:
        InvalidInput, NotFound, NotPermitted, WrongState: as `release_submit`; or the old one cannot
            be submitted again now.
    """
    old = release_get(actor=actor, id=release_id)
    return release_submit(
        actor=actor,
        version=old.version,
        environment=old.environment,
        deployment_name=old.deployment_name,
        departments=list(old.departments.all()) if departments is None else departments,
        visibility=old.visibility if visibility is None else visibility,
        purpose=old.purpose if purpose is None else purpose,
        risk_answers=old.risk_answers if risk_answers is None else risk_answers,
        dossier_fields=old.dossier_fields if dossier_fields is None else dossier_fields,
        tier=old.tier if tier is None else tier,
        renews=old,
        engine=old.engine,
        precision=old.precision,
    )


def release_history(*, actor: Principal, release: Release) -> QuerySet[Release]:
    """Return releases of the same version in the same place that `actor` may see, newest first."""
    return (
        releases_visible_to(actor)
        .filter(
            version=release.version_id,
            environment=release.environment,
            deployment_name=release.deployment_name,
        )
        .order_by("-pk")
    )


def release_renewal(*, actor: Principal, release: Release) -> Release | None:
    """Return the newest release that renews this one and that the actor may see."""
    rows = releases_visible_to(actor).filter(renews=release.pk).order_by("-pk")
    return narrowed(rows, "state").first()
