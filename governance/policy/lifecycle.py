"""How the rules change: a draft, its tests, a proposal, and a second person who decides."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.db import transaction
from django.db.models import Max

from governance.audit.services import Attempt, Subject, audit_record
from governance.errors import InvalidInput, NotPermitted, WrongState
from governance.notify import notify
from governance.permissions import Action
from governance.policy.access import require_two_deciders
from governance.policy.cases import CaseResult, failing, parse_cases, run_cases
from governance.policy.decisions import Authorization
from governance.policy.differences import Removals
from governance.policy.document import Document, document_checked, document_from_yaml
from governance.policy.engine import PolicySnapshot, Resource
from governance.policy.models import PolicyState, PolicyVersion
from governance.policy.selectors import policy_removals, policy_versions_visible_to
from governance.policy.services import (
    SNAPSHOT_CHANNEL,
    authorize,
    authorize_binding,
    policy_digest,
)
from governance.policy.states import (
    POLICY_STATES,
    policy_lock,
    policy_locked,
    policy_resource,
    policy_set_state,
    policy_subject,
)
from governance.principals import Principal

OPEN_MAX = 50
REASON_MAX = 2000
REMOVALS_SHOWN = 50


def content_digest(version: PolicyVersion) -> str:
    """SHA-256 of rules, tests and note: what an editor saw, and must still be there to be saved."""
    content = {"rules": version.rules, "tests": version.tests, "note": version.note}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def policy_read(*, actor: Principal, text: str) -> Document:
    """The rules, tests and note in `text`, YAML that may become a draft of the actor's.

    Raises:
        NotFound, NotPermitted: the actor drafts no policies; reading one may take a second.
        InvalidInput, TooLarge: it is no policy; `fields` says where.
    """
    authorize(actor=actor, action=Action.POLICY_DRAFT, resource=Resource("policy"))
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

    `tests` left out are those of the base, so that a change of rules drops none by accident.

    Raises:
        InvalidInput, TooLarge: the rules or tests are not valid; `fields` says where.
        NotPermitted: the policy refuses, or the actor is no person.
        WrongState: too many drafts and proposals are open.
    """
    with transaction.atomic():
        decision = authorize(actor=actor, action=Action.POLICY_DRAFT, resource=Resource("policy"))
        author = _author(actor, decision, Resource("policy"))
        policy_lock()
        base = _base(based_on)
        if tests is None:
            tests = list(PolicyVersion.objects.get(number=base).tests) if base else []
        document = document_checked(rules=rules, tests=tests, note=note)
        states = (PolicyState.DRAFT, PolicyState.PROPOSED)
        if PolicyVersion.objects.filter(state__in=states).count() >= OPEN_MAX:
            raise WrongState(
                f"{OPEN_MAX} drafts and proposals are open; no further one is made.",
                hint="Withdraw abandoned ones.",
            )
        newest = PolicyVersion.objects.aggregate(number=Max("number"))["number"] or 1
        version = PolicyVersion(
            number=newest + 1, created_by_id=author, authors=[author], based_on=base
        )
        _fill(version, document)
        version.save(force_insert=True)
        _record(actor, "policy:draft", version, decision)
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
    """Change a draft; what is None stays. The actor becomes one of its authors.

    `expected` is the `content_digest` that the change was made from.

    Raises:
        NotFound, NotPermitted: there is none, or the policy refuses.
        InvalidInput, TooLarge: the rules or tests are not valid; `fields` says where.
        WrongState: it is no longer a draft, or another person changed it meanwhile.
    """
    with transaction.atomic():
        version, decision = _locked(actor, number, Action.POLICY_DRAFT)
        author = _author(actor, decision, policy_resource(version))
        if version.state != PolicyState.DRAFT:
            raise WrongState(
                f"Policy {number} is {version.state}; only a draft can be changed.",
                hint="Draft a new policy from what it says.",
            )
        if expected is not None and expected != content_digest(version):
            raise WrongState(
                f"Draft {number} was changed meanwhile; your change is not saved.",
                hint="Look at what it says now, and change that.",
            )
        document = document_checked(
            rules=version.rules if rules is None else rules,
            tests=version.tests if tests is None else tests,
            note=version.note if note is None else note,
        )
        if based_on is not None:
            version.based_on = _base(based_on)
        if author not in version.authors:
            version.authors = [*version.authors, author]
        _fill(version, document)
        version.save()
        _record(actor, "policy:revise", version, decision)
    return version


def draft_delete(*, actor: Principal, number: int) -> None:
    """Throw a draft away. It stays on record as withdrawn, so that its number names nothing else.

    Raises:
        NotFound, NotPermitted: there is none, or the policy refuses.
        WrongState: it is no draft.
    """
    with transaction.atomic():
        version, decision = _locked(actor, number, Action.POLICY_DRAFT)
        if version.state != PolicyState.DRAFT:
            raise WrongState(
                f"Policy {number} is {version.state}; only a draft can be thrown away.",
                hint="A proposal is withdrawn.",
            )
        _move(actor, version, PolicyState.WITHDRAWN, decision)


def policy_propose(
    *, actor: Principal, number: int, acknowledge_removals: bool = False
) -> PolicyVersion:
    """Ask for a decision on a draft, which freezes it.

    Raises:
        NotFound, NotPermitted: there is none, or the policy refuses.
        WrongState: it is no draft; one of its tests fails; its base is no longer in force; fewer
            than two people could decide on policies under it; or it removes rules or tests and
            `acknowledge_removals` is false.
    """
    with transaction.atomic():
        version, decision = _locked(actor, number, Action.POLICY_DRAFT)
        author = _author(actor, decision, policy_resource(version))
        if author not in version.authors:
            # While it is a draft still: what is proposed keeps its authors.
            version.authors = [*version.authors, author]
            version.save(update_fields=["authors"])
        _require_ready(version, "proposed")
        removals = _acknowledged(version, acknowledge_removals, "proposed")
        _move(actor, version, PolicyState.PROPOSED, decision, removals=removals)
    return version


def policy_approve(
    *, actor: Principal, number: int, note: str = "", acknowledge_removals: bool = False
) -> PolicyVersion:
    """Put a proposal in force, at once and everywhere. The actor is none of its authors.

    Raises:
        NotFound, NotPermitted: there is none; the policy refuses; the actor has no fresh second
            factor, or wrote on it.
        WrongState: as `policy_propose`, or it is not proposed (any more).
    """
    with transaction.atomic():
        version, decision = _locked(actor, number, Action.POLICY_DECIDE, doing="approving")
        _require_second_person(actor, version, decision, "approve")
        _check_reason(note)
        removals = None
        if version.state == PolicyState.PROPOSED:
            _require_ready(version, "approved")
            removals = _acknowledged(version, acknowledge_removals, "approved")
            before = PolicyVersion.objects.filter(state=PolicyState.ACTIVE).first()
            if before is not None:
                _move(actor, before, PolicyState.SUPERSEDED, decision, f"By policy {number}.")
        _move(actor, version, PolicyState.ACTIVE, decision, note, removals)
        transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return version


def policy_reject(*, actor: Principal, number: int, reason: str) -> PolicyVersion:
    """Refuse a proposal for good, in words.

    Raises:
        NotFound, NotPermitted: as `policy_approve`.
        InvalidInput: no reason, or one that is too long.
        WrongState: it is not proposed (any more).
    """
    with transaction.atomic():
        version, decision = _locked(actor, number, Action.POLICY_DECIDE, doing="rejecting")
        _require_second_person(actor, version, decision, "reject")
        _check_reason(reason, needed=True)
        _move(actor, version, PolicyState.REJECTED, decision, reason)
    return version


def policy_withdraw(*, actor: Principal, number: int, reason: str = "") -> PolicyVersion:
    """Take a proposal back.

    Raises:
        NotFound, NotPermitted: there is none, or the policy refuses.
        WrongState: it is not proposed (any more).
    """
    with transaction.atomic():
        version, decision = _locked(actor, number, Action.POLICY_DRAFT)
        _check_reason(reason)
        if version.state == PolicyState.DRAFT:
            raise WrongState(
                f"Policy {number} is a draft; only a proposal is withdrawn.",
                hint="A draft can be changed, or thrown away.",
            )
        _move(actor, version, PolicyState.WITHDRAWN, decision, reason)
    return version


def version_test(version: PolicyVersion) -> list[CaseResult]:
    """Run a policy's own tests under its own rules."""
    return run_cases(version_snapshot(version), parse_cases(version.tests))


def version_snapshot(version: PolicyVersion) -> PolicySnapshot:
    """Its rules as the engine takes them, whatever its state."""
    return PolicySnapshot.from_rules(version.number, version.rules)


def _locked(
    actor: Principal, number: int, action: Action, *, doing: str = ""
) -> tuple[PolicyVersion, Authorization]:
    """The version, locked, and the decision that lets the actor at it. `doing` is what binds
    others, such as "approving", and needs a fresh second factor."""
    version = policy_locked(number)
    resource = policy_resource(version)
    try:
        if doing:
            decision = authorize_binding(
                actor=actor, action=action, resource=resource, doing=f"{doing} policy {number}"
            )
        else:
            decision = authorize(actor=actor, action=action, resource=resource)
    except NotPermitted as error:
        if policy_versions_visible_to(actor).filter(number=number).exists():
            raise
        raise POLICY_STATES.missing(error) from error
    return version, decision


def _move(
    actor: Principal,
    version: PolicyVersion,
    state: PolicyState,
    decision: Authorization,
    reason: str = "",
    removals: Removals | None = None,
) -> None:
    policy_set_state(
        actor=actor,
        version=version,
        state=state,
        reason=reason,
        decision=decision,
        removals=removals,
    )


def _acknowledged(version: PolicyVersion, acknowledged: bool, verb: str) -> Removals | None:
    """Return the rules and tests that the policy removes; None if it removes none.

    Raises:
        WrongState: it removes some, and the actor has not acknowledged that.
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


def _record(actor: Principal, action: str, version: PolicyVersion, decision: Authorization) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=policy_subject(version),
        data={
            "digest": version.digest,
            "content_digest": content_digest(version),
            "based_on": version.based_on,
            "rules": len(version.rules),
            "tests": len(version.tests),
        },
        decision=decision,
    )


def _fill(version: PolicyVersion, document: Document) -> None:
    version.rules, version.tests, version.note = document.rules, document.tests, document.note
    version.digest = policy_digest(document.rules)


def _base(number: int | None) -> int | None:
    """The policy in force, or the one that is named."""
    rows = PolicyVersion.objects.values_list("number", flat=True)
    if number is None:
        return rows.filter(state=PolicyState.ACTIVE).first()
    states = (PolicyState.ACTIVE, PolicyState.SUPERSEDED)
    if not rows.filter(number=number, state__in=states).exists():
        raise InvalidInput(
            f"Policy {number} was never in force; no draft is based on it.",
            fields={"based_on": ["names no policy that is or was in force"]},
        )
    return number


def _require_ready(version: PolicyVersion, verb: str) -> None:
    """Raises WrongState when it may not go on towards being in force."""
    active = PolicyVersion.objects.filter(state=PolicyState.ACTIVE).first()
    if (active.number if active else None) != version.based_on:
        now = f"policy {active.number} is in force" if active else "no policy is in force"
        raise WrongState(
            f"Policy {version.number} was drafted from policy {version.based_on}, but {now}; "
            f"it cannot be {verb}.",
            hint="Compare it with the policy in force, and base the draft, or a new one, on that.",
        )
    bad = failing(version_test(version))
    if bad:
        named = "; ".join(result.name for result in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise WrongState(
            f"Policy {version.number} fails {len(bad)} of its own {len(version.tests)} tests "
            f"({named}{more}); it cannot be {verb}.",
            code="policy_tests_fail",
            hint="Change the rules, or the tests that ask for what is not wanted.",
            fields={f"tests.{result.name}": [result.reason] for result in bad[:50]},
        )
    require_two_deciders(version_snapshot(version), verb)


def _author(
    actor: Principal,
    decision: Authorization,
    resource: Resource,
    action: Action = Action.POLICY_DRAFT,
) -> int:
    """Raises NotPermitted when the actor is no person, who alone can answer for a policy."""
    if actor.person_id is None:
        message = f"{actor.name} is no person; policies are written and decided by people."
        raise _refused(actor, decision, resource, action, message)
    return actor.person_id


def _require_second_person(
    actor: Principal, version: PolicyVersion, decision: Authorization, verb: str
) -> None:
    _author(actor, decision, policy_resource(version), Action.POLICY_DECIDE)
    if actor.person_id in version.authors:
        raise _refused(
            actor,
            decision,
            policy_resource(version),
            Action.POLICY_DECIDE,
            f"Separation of duties: {actor.name} wrote on policy {version.number} and may not "
            f"{verb} it.",
            "Another administrator decides; its authors can withdraw it.",
        )


def _refused(
    actor: Principal,
    decision: Authorization,
    resource: Resource,
    action: Action,
    message: str,
    hint: str = "",
) -> NotPermitted:
    return NotPermitted(
        message,
        code="separation_of_duties",
        hint=hint,
        attempt=Attempt(
            actor=actor,
            action=action.value,
            subject=Subject("policy", resource.id, f"policy {resource.id}".strip()),
            decision=decision,
        ),
    )


def _check_reason(text: str, *, needed: bool = False) -> None:
    if len(text) > REASON_MAX or "\x00" in text or (needed and not text.strip()):
        raise InvalidInput(
            f"Say why, in at most {REASON_MAX:,} characters.",
            fields={"reason": [f"is needed, and has at most {REASON_MAX:,} characters"]},
        )
