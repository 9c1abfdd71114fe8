"""Rules for submitting a release again, and for carrying over attestations of its review."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from governance.errors import InvalidInput, WrongState
from governance.principals import Principal
from governance.reviews.carrying import attested_in, checklist_carry
from governance.reviews.models import ChecklistItem, Review
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import release_review
from registry.releases.software import code_changed, code_named, packages_in_words
from registry.releases.terms import terms_of
from registry.versions.models import ModelVersion

AGAIN = frozenset(
    {ReleaseState.EXPIRED, ReleaseState.REJECTED, ReleaseState.VOIDED, ReleaseState.WITHDRAWN}
)
# Members of a dossier that describe the moment of freezing; attestations do not depend on them.
_OF_THE_MOMENT = frozenset({"format", "policy_version", "review_policy", "replaces"})
_ALWAYS = ("identity", "purpose", "release", "risk", "serving", "software")
# The additional sections that an item depends on; an item that is not named depends on all.
_DEPENDS_ON: Mapping[str, tuple[str, ...]] = {
    "classification": ("data",),
    "conformity": ("conformity",),
    "deployer-duties": (),
    "incidents": ("operation",),
    "instructions": ("card",),
    "logging": ("logging",),
    "monitoring": ("operation",),
    "oversight": ("oversight",),
    "personal-data": ("data",),
    "purpose": (),
    "risk-management": ("risks",),
    "stop-procedure": ("oversight",),
    "transparency": (),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One changed section of the dossier."""

    section: str
    before: str
    after: str


def renewal_obstacle(release: Release) -> WrongState | None:
    """Return the reason that `release` cannot be submitted again now; None if it can."""
    state = ReleaseState(release.state)
    if state in AGAIN:
        return None
    sentence = f"Release {release.pk} is {state.label.lower()}; it cannot be submitted again"
    if state is ReleaseState.APPROVED and code_changed(release):
        return None
    if state is ReleaseState.APPROVED and release.expires_at is not None:
        first = release.expires_at - timedelta(days=max(terms_of(release).warn_days, default=0))
        if first <= timezone.now():
            return None
        return WrongState(
            f"{sentence} before {first:%Y-%m-%d}: its approval lasts until "
            f"{release.expires_at:%Y-%m-%d}.",
            code="not_renewable",
            hint="Submit a changed request as a new release of the version.",
        )
    hints = {
        ReleaseState.IN_REVIEW: "Its review is under way.",
        ReleaseState.CHANGES_REQUESTED: "Answer the reviewers.",
        ReleaseState.RECALLED: "A recalled version never serves again; release another.",
        ReleaseState.SUSPENDED: "Resolve the incident that suspends it.",
    }
    return WrongState(f"{sentence}.", code="not_renewable", hint=hints.get(state, ""))


def check_renewal(
    renews: Release, version: ModelVersion, environment: str, deployment_name: str
) -> None:
    """Raise WrongState if it cannot be renewed now, InvalidInput if version or place differ."""
    if (obstacle := renewal_obstacle(renews)) is not None:
        raise obstacle
    same = (renews.version_id, renews.environment, renews.deployment_name)
    if same != (version.pk, environment, deployment_name):
        raise InvalidInput(
            f"Release {renews.pk} is of {renews.version} as {renews.deployment_name} in "
            f"{renews.environment}; a renewal must have the same version, name and environment.",
            fields={"renews": ["Has another version, name or environment."]},
        )


def dossier_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return the sections in which two dossiers of a version differ, submitters aside."""
    changes = []
    for section in sorted({*before, *after} - {"format"}):
        one, other = _section(before, section), _section(after, section)
        if one != other:
            changes.append(Change(section, _brief(section, one), _brief(section, other)))
    return changes


def unchanged_items(
    old: Release, review: Review | None, dossier: Mapping[str, Any]
) -> list[ChecklistItem]:
    """Return the items attested for `old` that depend on nothing changed in `dossier`. After a
    rejection none is carried over: all are reviewed again.
    """
    if review is None or old.state == ReleaseState.REJECTED:
        return []
    return [item for item in attested_in(review) if _is_unaffected(item, old.dossier, dossier)]


def attestations_carry(*, actor: Principal, release: Release, review: Review) -> list[str]:
    """Carry valid attestations over into the review of a renewal; return the items' codes."""
    old = release.renews
    source = None if old is None else release_review(old)
    if old is None or source is None:
        return []
    items = unchanged_items(old, source, release.dossier)
    return checklist_carry(actor=actor, review=review, source=source, items=items)


def _is_unaffected(
    item: ChecklistItem, before: Mapping[str, Any], after: Mapping[str, Any]
) -> bool:
    named = _DEPENDS_ON.get(item.code)
    sections = {*before, *after} - _OF_THE_MOMENT if named is None else {*_ALWAYS, *named}
    return all(_section(before, name) == _section(after, name) for name in sections)


def _section(dossier: Mapping[str, Any], name: str) -> Any:
    """Return a section without its submitter and the release that is live now; of the software,
    only the packages of the task, since attestations do not depend on the engine's packages."""
    if name == "software":
        return code_named(dossier)
    value = dossier.get(name)
    if isinstance(value, Mapping):
        ignored = {"release": "submitted_by", "operation": "rollback"}.get(name)
        return {key: part for key, part in value.items() if key != ignored}
    return value


def _brief(section: str, value: Any) -> str:
    if section == "evaluations":
        count = len(value or ())
        return f"{count} evaluation{'' if count == 1 else 's'}"
    if section == "software":
        return packages_in_words(value["packages"])
    if section == "replaces":
        return f"release {value['release']}" if value else "nothing"
    if section == "review_policy":
        return f"{value['name']}, version {value['version']}" if value else "none"
    if value in (None, "", [], {}):
        return "nothing"
    return value[:200] if isinstance(value, str) else str(value) if isinstance(value, int) else ""
