"""Lifecycle of access policies: draft, tests, proposal, and the decision of a second person."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.db.models import Max

from governance.errors import InvalidInput, WrongState
from governance.notify import notify
from governance.permissions import Action
from governance.policy.access import require_two_deciders
from governance.policy.cases import CaseResult, failed_results, parse_cases, run_cases
from governance.policy.decisions import Authorization
from governance.policy.differences import Removals
from governance.policy.document import Document, document_checked, document_from_yaml
from governance.policy.engine import PolicySnapshot
from governance.policy.models import PolicyState, PolicyVersion
from governance.policy.proposals import (
    ALLOWED_TRANSITIONS,
    PolicyLifecycle,
    author_add,
    checked_reason,
)
from governance.policy.selectors import policy_removals, policy_versions_visible_to
from governance.policy.services import SNAPSHOT_CHANNEL, authorize, policy_digest
from governance.principals import Principal
from governance.state_machine import StateMachine

POLICIES = PolicyLifecycle(
    kind="policy",
    states=StateMachine(
        model=PolicyVersion,
        noun="policy",
        table=ALLOWED_TRANSITIONS,
        hint="draft a new policy from its content",
        key="number",
    ),
    number="number",
    name=lambda version: str(version.number),
    visible_to=policy_versions_visible_to,
)
REMOVALS_SHOWN = 50


def content_digest(version: PolicyVersion) -> str:
    """Return the SHA-256 of rules, tests and note, which detects changes by another editor."""
    content = {"rules": version.rules, "tests": version.tests, "note": version.note}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def policy_read(*, actor: Principal, text: str) -> Document:
    """Parse the YAML of a policy that the actor may turn into a draft.

    Raises:
        NotFound, NotPermitted: the actor may not draft policies (checked first: parsing is slow).
        InvalidInput, TooLarge: it is not a valid policy; `fields` has the places.
    """
    authorize(actor=actor, action=Action.POLICY_DRAFT, resource=POLICIES.resource())
    return document_from_yaml(text)


def draft_create(
    *,
    actor: Principal,
    rules: list[dict[str, Any]],
    tests: list[dict[str, Any]] | None = None,
    note: str = "",
    based_on: int | None = None,
) -> PolicyVersion:
    """Create a draft, based on the policy in force unless another is named.

    `tests` default to those of the base, so that a change of rules does not drop them by accident.

    Raises:
        InvalidInput, TooLarge: the rules or tests are not valid; `fields` has the places.
        NotPermitted: the policy denies it, or the actor is not a person.
        WrongState: too many drafts and proposals are open.
    """
    with transaction.atomic():
        decision = authorize(actor=actor, action=Action.POLICY_DRAFT, resource=POLICIES.resource())
        author = POLICIES.person(None, actor=actor, decision=decision)
        POLICIES.lock()
        base = _base(based_on)
        if tests is None:
            tests = list(PolicyVersion.objects.get(number=base).tests) if base else []
        document = document_checked(rules=rules, tests=tests, note=note)
        POLICIES.require_room()
        newest = PolicyVersion.objects.aggregate(number=Max("number"))["number"] or 1
        version = PolicyVersion(
            number=newest + 1, created_by_id=author, authors=[author], based_on=base
        )
        _fill(version, document)
        version.save(force_insert=True)
        _record(actor, "draft", version, decision)
    return version


def draft_update(
    *,
    actor: Principal,
    number: int,
    rules: list[dict[str, Any]] | None = None,
    tests: list[dict[str, Any]] | None = None,
    note: str | None = None,
    based_on: int | None = None,
    expected: str | None = None,
) -> PolicyVersion:
    """Change a draft; arguments that are None stay unchanged. The actor becomes an author.

    `expected` is the `content_digest` of the draft that the editor saw.

    Raises:
        NotFound, NotPermitted: the draft does not exist, or the policy denies it.
        InvalidInput, TooLarge: the rules or tests are not valid; `fields` has the places.
        WrongState: it is no longer a draft, or another person changed it meanwhile.
    """
    with transaction.atomic():
        version, decision = POLICIES.locked(number, actor=actor, action=Action.POLICY_DRAFT)
        author = POLICIES.person(version, actor=actor, decision=decision)
        POLICIES.require_draft(version, digest=content_digest(version), expected=expected)
        document = document_checked(
            rules=version.rules if rules is None else rules,
            tests=version.tests if tests is None else tests,
            note=version.note if note is None else note,
        )
        if based_on is not None:
            version.based_on = _base(based_on)
        author_add(version, author)
        _fill(version, document)
        version.save()
        _record(actor, "revise", version, decision)
    return version


def draft_delete(*, actor: Principal, number: int) -> None:
    """Discard a draft. It stays on record as withdrawn, so that its number is not used again.

    Raises:
        NotFound, NotPermitted: the draft does not exist, or the policy denies it.
        WrongState: the policy is not a draft.
    """
    with transaction.atomic():
        version, decision = POLICIES.locked(number, actor=actor, action=Action.POLICY_DRAFT)
        if version.state != PolicyState.DRAFT:
            raise WrongState(
                f"Policy {number} is {version.state}; only a draft can be discarded.",
                hint="Withdraw a proposal instead.",
            )
        POLICIES.move(version, PolicyState.WITHDRAWN, actor=actor, decision=decision)


def policy_propose(
    *, actor: Principal, number: int, acknowledge_removals: bool = False
) -> PolicyVersion:
    """Submit a draft for a decision, which freezes it.

    Raises:
        NotFound, NotPermitted: the draft does not exist, or the policy denies it.
        WrongState: it is not a draft; one of its tests fails; its base is no longer in force; fewer
            than two people could decide on policies under it; or it removes rules or tests and
            `acknowledge_removals` is false.
    """
    with transaction.atomic():
        version, decision = POLICIES.locked(number, actor=actor, action=Action.POLICY_DRAFT)
        author = POLICIES.person(version, actor=actor, decision=decision)
        POLICIES.states.require(version, PolicyState.PROPOSED)
        if author_add(version, author):
            # Save now: after the proposal, the authors are frozen.
            version.save(update_fields=["authors"])
        _require_ready(version, "proposed")
        removals = _acknowledged(version, acknowledge_removals, "proposed")
        POLICIES.move(
            version, PolicyState.PROPOSED, actor=actor, decision=decision, data=_removed(removals)
        )
    return version


def policy_approve(
    *, actor: Principal, number: int, note: str = "", acknowledge_removals: bool = False
) -> PolicyVersion:
    """Approve a proposal, which puts it in force at once. The actor is not one of its authors.

    Raises:
        NotFound, NotPermitted: the policy does not exist; the policy in force denies it; the actor
            has no fresh second factor, or edited the proposal.
        WrongState: as `policy_propose`, or it is not (or no longer) proposed.
    """
    with transaction.atomic():
        version, decision = POLICIES.locked(number, actor=actor, action=Action.POLICY_DECIDE)
        POLICIES.require_second_person(version, actor=actor, decision=decision, verb="approve")
        note = checked_reason(note)
        removals = None
        if version.state == PolicyState.PROPOSED:
            _require_ready(version, "approved")
            removals = _acknowledged(version, acknowledge_removals, "approved")
            former = PolicyVersion.objects.filter(state=PolicyState.ACTIVE).first()
            if former is not None:
                POLICIES.move(
                    former,
                    PolicyState.SUPERSEDED,
                    actor=actor,
                    reason=f"By policy {number}.",
                    decision=decision,
                )
        POLICIES.move(
            version,
            PolicyState.ACTIVE,
            actor=actor,
            reason=note,
            decision=decision,
            data=_removed(removals),
        )
        transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return version


def policy_reject(*, actor: Principal, number: int, reason: str) -> PolicyVersion:
    """Reject a proposal for good, with a reason.

    Raises:
        NotFound, NotPermitted: as `policy_approve`.
        InvalidInput: the reason is missing, or too long.
        WrongState: it is not (or no longer) proposed.
    """
    with transaction.atomic():
        version, decision = POLICIES.locked(number, actor=actor, action=Action.POLICY_DECIDE)
        POLICIES.require_second_person(version, actor=actor, decision=decision, verb="reject")
        reason = checked_reason(reason, required=True)
        return POLICIES.move(
            version, PolicyState.REJECTED, actor=actor, reason=reason, decision=decision
        )


def policy_withdraw(*, actor: Principal, number: int, reason: str = "") -> PolicyVersion:
    """Withdraw a proposal.

    Raises:
        NotFound, NotPermitted: the proposal does not exist, or the policy denies it.
        WrongState: it is not (or no longer) proposed.
    """
    with transaction.atomic():
        version, decision = POLICIES.locked(number, actor=actor, action=Action.POLICY_DRAFT)
        reason = checked_reason(reason)
        if version.state == PolicyState.DRAFT:
            raise WrongState(
                f"Policy {number} is a draft; only a proposal can be withdrawn.",
                hint="Change or discard the draft instead.",
            )
        return POLICIES.move(
            version, PolicyState.WITHDRAWN, actor=actor, reason=reason, decision=decision
        )


def version_test(version: PolicyVersion) -> list[CaseResult]:
    """Run a policy's own tests under its own rules."""
    return run_cases(version_snapshot(version), parse_cases(version.tests))


def version_snapshot(version: PolicyVersion) -> PolicySnapshot:
    """Return the policy's rules for the engine, whatever its state."""
    return PolicySnapshot.from_rules(version.number, version.rules)


def _acknowledged(version: PolicyVersion, acknowledged: bool, verb: str) -> Removals | None:
    """Return the rules and tests that the policy removes; None if it removes none.

    Raises:
        WrongState: it removes some, and the actor has not acknowledged it.
    """
    removals = policy_removals(version)
    if not removals:
        return None
    if not acknowledged:
        raise WrongState(
            f"Policy {version.number} removes {removals} of policy {version.based_on}; it cannot "
            f"be {verb} until that is acknowledged.",
            code="removals_not_acknowledged",
            hint="Look at what is removed, then repeat the request with acknowledge_removals.",
            fields={
                "rules_removed": removals.rules[:REMOVALS_SHOWN],
                "tests_removed": removals.tests[:REMOVALS_SHOWN],
            },
        )
    return removals


def _removed(removals: Removals | None) -> dict[str, Any]:
    """Return the data about acknowledged removals for the event of a decision."""
    return {} if removals is None else {"removed": asdict(removals)}


def _record(actor: Principal, verb: str, version: PolicyVersion, decision: Authorization) -> None:
    sizes = {"rules": len(version.rules), "tests": len(version.tests)}
    data = {"content_digest": content_digest(version), **sizes}
    POLICIES.record(version, verb, actor=actor, decision=decision, data=data)


def _fill(version: PolicyVersion, document: Document) -> None:
    version.rules, version.tests, version.note = document.rules, document.tests, document.note
    version.digest = policy_digest(document.rules)


def _base(number: int | None) -> int | None:
    """Return `number` if that policy is or was in force; without one, the number in force."""
    rows = PolicyVersion.objects.values_list("number", flat=True)
    if number is None:
        return rows.filter(state=PolicyState.ACTIVE).first()
    states = (PolicyState.ACTIVE, PolicyState.SUPERSEDED)
    if not rows.filter(number=number, state__in=states).exists():
        raise InvalidInput(
            f"Policy {number} was never in force; a draft cannot be based on it.",
            fields={"based_on": ["names a policy that was never in force"]},
        )
    return number


def _require_ready(version: PolicyVersion, verb: str) -> None:
    """Raise WrongState if the policy may not be proposed or approved."""
    active = PolicyVersion.objects.filter(state=PolicyState.ACTIVE).first()
    POLICIES.require_base(version, active, verb)
    failed = failed_results(version_test(version))
    if failed:
        names = "; ".join(result.name for result in failed[:5])
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise WrongState(
            f"Policy {version.number} fails {len(failed)} of its own {len(version.tests)} tests "
            f"({names}{more}); it cannot be {verb}.",
            code="policy_tests_fail",
            hint="Change the rules or the tests.",
            fields={f"tests.{result.name}": [result.reason] for result in failed[:50]},
        )
    require_two_deciders(version_snapshot(version), verb)
