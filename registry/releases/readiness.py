"""Readiness of a version for release, before anyone fills in the release form.

The checks are those of the checklist; this module makes no decisions of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.utils import timezone
from django.utils.text import get_text_list

from governance.english import counted
from governance.errors import InvalidInput, Unavailable, WrongState
from governance.people.credentials import with_sign_in_admins
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.checklist import CheckOutcome
from governance.reviews.policies.document import Item, ReviewPolicyDocument
from governance.reviews.policies.selectors import (
    ActivePolicy,
    minimum_tier_for,
    review_policies_in_force,
)
from governance.reviews.reviewers import ReviewerCount, reviewer_counts
from governance.rowsecurity import lifted
from registry.catalog import TASKS
from registry.catalog.engines import ENGINE_TITLES
from registry.datasets.models import Classification
from registry.evaluations.standing import GateStanding, GateState
from registry.incidents.reach import check_not_suspended, suspended_by
from registry.releases.checklist import (
    AT_SUBMISSION,
    NEVER_WAIVED,
    Case,
    Result,
    early_results,
    trained_levels,
    version_gates,
)
from registry.releases.comparison.card import sections
from registry.releases.dossier import dossier_evidence
from registry.releases.dossier_fields import CONTENTS, missing_sections
from registry.releases.engines import engines_for
from registry.releases.risk import FACTS
from registry.releases.separation import people_behind
from registry.releases.serving import check_trusted
from registry.releases.submittable import UNDER_REVIEW, lacks_evaluation
from registry.releases.tiers import risk_facts
from registry.releases.vocabulary import CHECKS
from registry.resources import department_resource
from registry.versions.hosted import can_be_evaluated, check_provider_runs, hosted_served
from registry.versions.models import ModelVersion, VersionKind
from registry.versions.selectors import base_chain

SECTIONS_NAMED = 12
_LEVELS = list(Classification.values)


class ReadinessState(StrEnum):
    """State of one requirement. `AT_SUBMISSION`: decided by the form or by a slow check."""

    READY = "ready"
    MISSING = "missing"
    NEEDS_JUDGMENT = "needs_judgment"
    NOT_APPLICABLE = "not_applicable"
    AT_SUBMISSION = "at_submission"


class Blocks(StrEnum):
    """The step that a missing requirement prevents."""

    NOTHING = ""
    APPROVAL = "approval"
    SUBMISSION = "submission"


_STATES = {
    CheckOutcome.PASSED: ReadinessState.READY,
    CheckOutcome.FAILED: ReadinessState.MISSING,
    CheckOutcome.NOT_APPLICABLE: ReadinessState.NOT_APPLICABLE,
    CheckOutcome.NEEDS_JUDGMENT: ReadinessState.NEEDS_JUDGMENT,
}


@dataclass(frozen=True, slots=True)
class Fix:
    """Page where a missing requirement is met: its kind, and the id or name of its subject."""

    page: str
    id: int | str


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement of the release. `waivable`: a reviewer may waive it for a limited time."""

    code: str
    title: str
    state: ReadinessState
    note: str
    blocks: Blocks = Blocks.NOTHING
    waivable: bool = False
    fix: Fix | None = None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Current state of everything that a release of `version` under `tier` needs.

    `gates` are the model's gates with the version's latest results; `attested` the titles of the
    items that reviewers judge; `tiers` maps the tiers in force to their titles.
    """

    version: ModelVersion
    tier: str
    tier_title: str
    tiers: dict[str, str]
    requirements: list[Requirement]
    gates: list[GateStanding]
    reviewers: list[ReviewerCount]
    attested: list[str]

    @property
    def missing(self) -> list[Requirement]:
        return [each for each in self.requirements if each.state is ReadinessState.MISSING]

    @property
    def can_submit(self) -> bool:
        """Return true if no known problem prevents submission of the form."""
        return not any(each.blocks is Blocks.SUBMISSION for each in self.missing)


def version_readiness(*, actor: Principal, version: ModelVersion, tier: str = "") -> Readiness:
    """Return the requirements of a release of `version`, by default in the lowest possible tier.

    For people who may see releases of the version's department, whose dossiers have these facts.

    Raises:
        InvalidInput: the tier does not exist.
        NotFound, NotPermitted: the policy refuses.
        WrongState: no review policy is in force.
    """
    resource = department_resource("release", version.model.department)
    authorize(actor=actor, action=Action.RELEASE_VIEW, resource=resource)
    return _readiness(actor, version, tier)


@lifted()
def _readiness(actor: Principal, version: ModelVersion, tier: str) -> Readiness:
    policies = review_policies_in_force()
    levels = trained_levels([version, *base_chain(version)])
    highest = max(levels.values(), key=_LEVELS.index, default=_LEVELS[0])
    facts = risk_facts(version, {"data_classification": highest})
    chosen = _chosen(policies, tier, facts)
    evidence, unavailable = _evidence(version)
    case = Case(version, {**evidence, "risk": {"answers": {}}}, chosen.document)
    gates = version_gates(version, case.code)
    reviewers = _reviewers(actor, version, chosen.document)
    requirements = [
        _trusted(version),
        *_under_review(version),
        *_checked(case, early_results(case), gates, unavailable),
        *_stated(case, highest),
        *_tier(chosen.document, policies),
        _engine(version),
        *_provider(version),
        _data(version),
        *map(_reviewed, reviewers),
    ]
    return Readiness(
        version=version,
        tier=chosen.document.name,
        tier_title=chosen.document.title,
        tiers={each.document.name: each.document.title for each in policies},
        requirements=requirements,
        gates=gates,
        reviewers=reviewers,
        attested=[
            each.title
            for each in chosen.document.items
            if not each.check and not _excluded(each, facts)
        ],
    )


def _excluded(item: Item, facts: dict[str, Any]) -> bool:
    """Return whether the facts about the version alone rule an item out."""
    known = [each.holds(facts) for each in item.when if each.answer in FACTS]
    return len(known) == len(item.when) > 0 and not any(known)


def _evidence(version: ModelVersion) -> tuple[dict[str, Any], str]:
    """Return evidence as in a dossier, and why the leak check cannot run, if it cannot."""
    try:
        return dossier_evidence(version), ""
    except Unavailable as error:
        return dossier_evidence(version, leaks=False), error.message


def _chosen(policies: list[ActivePolicy], tier: str, facts: dict[str, Any]) -> ActivePolicy:
    # `minimum_tier_for` raises the error for an empty list.
    least = minimum_tier_for(facts, policies)
    by_tier = {each.document.name: each for each in policies}
    if (tier or least.name) not in by_tier:
        raise InvalidInput(
            f"There is no tier {tier[:40]!r}.",
            hint=f"Choose one of {', '.join(by_tier)}.",
            fields={"tier": [f"One of {', '.join(by_tier)}."]},
        )
    return by_tier[tier or least.name]


def _reviewers(
    actor: Principal, version: ModelVersion, policy: ReviewPolicyDocument
) -> list[ReviewerCount]:
    excluded = people_behind(version)
    if actor.person_id is not None:
        excluded |= with_sign_in_admins({actor.person_id})
    return reviewer_counts(
        policy.required_approvals({}),
        resource=Resource(
            "review", department=version.model.department.slug, attributes={"tier": policy.name}
        ),
        excluded=excluded,
        vote_after_hours=policy.vote_after_hours,
    )


def _trusted(version: ModelVersion) -> Requirement:
    title, blocks, fix = "The version is trusted", Blocks.NOTHING, None
    state, note = ReadinessState.READY, "It is neither recalled nor suspended by an incident."
    try:
        check_trusted(version, "released")
        blocks = Blocks.APPROVAL
        check_not_suspended(version, "approved")
        blocks = Blocks.NOTHING
    except WrongState as error:
        state, note = ReadinessState.MISSING, error.message
        if blocks is Blocks.NOTHING:
            blocks, fix = Blocks.SUBMISSION, Fix("version", version.pk)
        else:
            fix = Fix("incident", suspended_by([version.pk])[version.pk])
    return Requirement("trusted", title, state, note, blocks, fix=fix)


def _under_review(version: ModelVersion) -> Iterator[Requirement]:
    releases = version.releases.filter(state__in=UNDER_REVIEW).order_by("pk")
    for release in releases[:5]:
        yield Requirement(
            "under_review",
            f"Release {release.pk} is under review",
            ReadinessState.NEEDS_JUDGMENT,
            f"A second request for {release.deployment_name} in {release.environment} is refused "
            "until it is decided or withdrawn.",
            fix=Fix("release", release.pk),
        )


def _checked(
    case: Case, results: dict[str, Result], gates: list[GateStanding], unavailable: str
) -> Iterator[Requirement]:
    items = {item.check: item for item in case.policy.items if item.check}
    for check, (outcome, note) in results.items():
        item = items.get(check)
        state = _STATES[outcome]
        if check == "leak" and unavailable:
            state, note = ReadinessState.MISSING, unavailable
        if check == "card" and (titles := _sections_named(case.version)):
            note = f"{note} Its sections: {titles}."
        if item is None:
            sentence = f"The tier {case.policy.name} does not require it."
            yield Requirement(
                check,
                CHECKS[check].capitalize(),
                ReadinessState.NOT_APPLICABLE,
                f"{sentence} {note}",
            )
            continue
        missing = state is ReadinessState.MISSING
        yield Requirement(
            check,
            item.title,
            state,
            note,
            _blocks(check, case) if missing else Blocks.NOTHING,
            _waivable(item),
            _fix(check, case, gates) if missing else None,
        )


def _blocks(check: str, case: Case) -> Blocks:
    unmeasured = check == "evaluated" and lacks_evaluation(case.version, case.policy)
    return Blocks.SUBMISSION if unmeasured else Blocks.APPROVAL


def _waivable(item: Item) -> bool:
    return item.waivable and item.check not in NEVER_WAIVED


def _sections_named(version: ModelVersion) -> str:
    titles = [title for title, _ in sections(version.card).values()]
    more = f" and {len(titles) - SECTIONS_NAMED} more" if len(titles) > SECTIONS_NAMED else ""
    return f"{', '.join(titles[:SECTIONS_NAMED])}{more}" if titles else ""


def _fix(check: str, case: Case, gates: list[GateStanding]) -> Fix | None:
    version, model = case.version, case.version.model
    evaluate = Fix("version_evaluate", version.pk)
    adapt = Fix("model_fine_tune", model.name) if version.base_id else None
    deliver = Fix("intake_new", model.name)
    match check:
        case "evaluated" | "leak":
            entry = TASKS.get(model.task)
            possible = entry is not None and can_be_evaluated(version, entry)
            return evaluate if possible else None
        case "gates":
            if len(gates) < case.policy.gates.at_least:
                return Fix("model_gate", model.name)
            failed = any(each.state is GateState.FAILED for each in gates)
            return Fix("model", model.name) if failed else evaluate
        case "intake" | "license":
            root = case.chain[-1]
            intake = getattr(root, "intake", None)
            if check == "intake" and intake is not None:
                return Fix("intake", intake.pk)
            return deliver if root is version else Fix("version", root.pk)
        case "card":
            return adapt or deliver
    return None


def _stated(case: Case, highest: str) -> Iterator[Requirement]:
    """Yield items that are decided at submission, with their current notes."""
    missing = _sections(missing_sections(case.policy.name, {}))
    notes = {
        "classification": f"State {highest}, the level of the training data, or higher in the form."
        if trained_levels(case.chain)
        else "You state it in the form. No training data is registered here.",
        "dossier": f"The form asks for {missing}."
        if missing
        else "This tier requires no further sections of the form.",
        "files": "Every stored file is hashed when you submit.",
    }
    for item in case.policy.items:
        if item.check in AT_SUBMISSION:
            yield Requirement(
                item.check,
                item.title,
                ReadinessState.AT_SUBMISSION,
                notes[item.check],
                waivable=_waivable(item),
            )


def _tier(chosen: ReviewPolicyDocument, policies: list[ActivePolicy]) -> Iterator[Requirement]:
    """Yield a note on the tier, with the further sections that higher tiers require."""
    own = set(missing_sections(chosen.name, {}))
    documents = [each.document for each in policies]
    names = [each.name for each in documents]
    # Titles of tiers, by what they add.
    titles: dict[str, list[str]] = {}
    for tier in documents[names.index(chosen.name) + 1 :]:
        added = [each for each in missing_sections(tier.name, {}) if each not in own]
        titles.setdefault(get_text_list(added, "and"), []).append(tier.title)
    more = [
        f"{get_text_list(tiers, 'and')} also {'asks' if len(tiers) == 1 else 'ask'} for {added}."
        for added, tiers in titles.items()
        if added
    ]
    if titles:
        yield Requirement(
            "tier",
            "The tier fits your answers about risk",
            ReadinessState.AT_SUBMISSION,
            " ".join(("The form refuses a tier that is too low for them.", *more)),
        )


def _sections(names: list[str]) -> str:
    return get_text_list([CONTENTS[each] for each in names], "and")


def _engine(version: ModelVersion) -> Requirement:
    title = "An engine serves it"
    titles = [ENGINE_TITLES[each] for each in engines_for(version)]
    if len(titles) == 1:
        note = f"One engine can serve it: {titles[0]}."
        return Requirement("engine", title, ReadinessState.READY, note)
    note = (
        f"You choose the engine in the form: {get_text_list(titles)}. Evaluations run "
        "on the first one, with the weights as stored; another engine or precision needs a "
        "reviewer's judgment."
    )
    return Requirement("engine", title, ReadinessState.AT_SUBMISSION, note)


def _provider(version: ModelVersion) -> Iterator[Requirement]:
    """Yield the requirement that the provider still runs a hosted model."""
    hosted = hosted_served(version)
    if hosted is None:
        return
    title = "The provider still runs the model"
    try:
        check_provider_runs(hosted)
    except WrongState as error:
        note, blocks = f"{error.message} {error.hint}", Blocks.SUBMISSION
        yield Requirement("provider", title, ReadinessState.MISSING, note, blocks)
        return
    note = f"{hosted.provider} has announced no shutdown date for {hosted.model}."
    if hosted.ends_at is not None:
        days = counted((hosted.ends_at - timezone.now()).days, "day")
        note = (
            f"{hosted.provider} ends {hosted.model} on {hosted.shutdown_on}, in {days}. An "
            "approval ends no later."
        )
    yield Requirement("provider", title, ReadinessState.READY, note)


def _data(version: ModelVersion) -> Requirement:
    title, data = "Training data is linked", version.dataset_version
    if data is not None:
        facts = (
            f"{data}, {data.rows:,} rows, {data.dataset.classification}, {data.dataset.license}."
        )
        if version.rows_cut:
            facts += (
                f" {version.rows_cut:,} rows were longer than training reads; only a part of "
                "each was learned."
            )
        return Requirement("data", title, ReadinessState.READY, facts)
    note = "No training data is registered for this version."
    if version.kind == VersionKind.BASE:
        note = "A base version was trained elsewhere."
    if version.kind == VersionKind.HOSTED:
        note = "Its provider trained it, on data that is not registered here."
    return Requirement("data", title, ReadinessState.NOT_APPLICABLE, note)


def _reviewed(count: ReviewerCount) -> Requirement:
    name = count.specialty.replace("-", " ")
    title = f"{count.needed} reviewers for {name} are available"
    if count.needed == 1:
        title = f"A reviewer for {name} is available"
    note = f"{count.needed} needed; {count.able} had no part in it and can decide."
    others = [
        f"{number} {words}"
        for number, words in (
            (count.had_part, "had a part in it, or would submit it"),
            (count.new, "cannot vote yet"),
            (count.away, "away"),
        )
        if number
    ]
    if others:
        note += f" Not counted: {', '.join(others)}."
    if count.short and count.able >= count.needed:
        note += " One person approves once, so these approvals need more people."
    return Requirement(
        f"reviewers:{count.specialty}",
        title,
        ReadinessState.MISSING if count.short else ReadinessState.READY,
        note,
        Blocks.APPROVAL if count.short else Blocks.NOTHING,
        fix=Fix("people", "") if count.short else None,
    )
