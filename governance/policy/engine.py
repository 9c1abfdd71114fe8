"""Policy decisions: pure functions over an immutable snapshot. Knows no Django.

Default deny; one forbid outweighs every permit; an evaluation error denies. `decide` answers about
one resource and `visibility` about all of them, from the same bound clauses, so that a list shows
exactly what single decisions would let through.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from governance.permissions import CREATING_VERBS, VIEW_ACTIONS, Action
from governance.policy.index import RuleIndex, bits
from governance.policy.rule_conditions import (
    BoundCondition,
    Clause,
    EvaluationError,
    Resource,
    bind,
    covers,
    evaluate,
    failing,
)
from governance.policy.rules import Effect, Rule, parse_rules
from governance.policy.sentences import denial, describe_failure, scope_denial
from governance.principals import Principal

__all__ = [
    "NO_POLICY",
    "BoundCondition",
    "Clause",
    "EvaluationError",
    "PolicyDecision",
    "PolicySnapshot",
    "Resource",
    "Visibility",
    "decide",
    "may_know_of",
    "scope_allows",
    "visibility",
]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
# Resource types are a few dozen; more come from asking about types that there are not.
_INDEXES_MAX = 4096


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """The verdict, the ids of the rules that made it, and a sentence a person can read."""

    allowed: bool
    rules: tuple[str, ...]
    policy_version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Visibility:
    """The resources that an actor may act on: those that a permit matches and no forbid, where no
    clause errs.
    """

    permits: tuple[Clause, ...] = ()
    forbids: tuple[Clause, ...] = ()

    def for_type(self, resource_type: str) -> Visibility:
        """Only the clauses that are about this resource type."""
        return Visibility(
            permits=tuple(c for c in self.permits if covers(c.resource_types, resource_type)),
            forbids=tuple(c for c in self.forbids if covers(c.resource_types, resource_type)),
        )


@dataclass(frozen=True)
class PolicySnapshot:
    """An immutable version of the rules, indexed by action. Version 0: no policy is active."""

    version: int
    rules: tuple[Rule, ...] = ()
    by_action: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict, repr=False)
    # Derived from the rules at first use.
    _indexes: dict[tuple[str, str], RuleIndex] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def index(self, action: str, resource_type: str) -> RuleIndex:
        """The rules about this action on this type of resource."""
        key = (action, resource_type)
        index = self._indexes.get(key)
        if index is None:
            rules = self.by_action.get(action, ())
            index = RuleIndex(tuple(r for r in rules if covers(r.resource_types, resource_type)))
            if len(self._indexes) >= _INDEXES_MAX:
                self._indexes.clear()
            self._indexes[key] = index
        return index

    @classmethod
    def from_rules(cls, version: int, rules: list[dict[str, Any]]) -> PolicySnapshot:
        """Raises InvalidInput, with every fault named, when `rules` are not valid."""
        parsed = parse_rules(rules)
        index: dict[str, list[Rule]] = {}
        for rule in parsed:
            for action in dict.fromkeys(rule.actions):
                index.setdefault(action.value, []).append(rule)
        frozen = MappingProxyType({action: tuple(found) for action, found in index.items()})
        return cls(version=version, rules=parsed, by_action=frozen)


NO_POLICY = PolicySnapshot(version=0)


def scope_allows(scopes: frozenset[str] | None, action: str) -> bool:
    """True when a token's scopes include the action.

    A scope on a resource includes viewing that resource: `deployment:invoke` may also list.
    """
    if scopes is None or action in scopes:
        return True
    kind, _, verb = action.partition(":")
    return verb == "view" and any(scope.startswith(f"{kind}:") for scope in scopes)


def decide(
    snapshot: PolicySnapshot,
    actor: Principal,
    action: str,
    resource: Resource,
    context: Mapping[str, Any] | None = None,
) -> PolicyDecision:
    """Decide whether `actor` may do `action` on `resource`, by which rules, and why.

    Never raises: what cannot be evaluated is denied, with the reason.
    """
    version = snapshot.version

    def denied(why: str, *rules: str) -> PolicyDecision:
        return PolicyDecision(False, rules, version, denial(actor, action, resource, why, version))

    if version == 0:
        return denied("no policy is active, so everything is refused; run `manage.py bootstrap`")
    if not scope_allows(actor.scopes, action):
        return denied(scope_denial(actor))
    context = _NOTHING if context is None else context
    index = snapshot.index(action, resource.type)
    about, holding, erring = index.judge(actor, resource, context)
    permits = holding & index.permits
    if holding != permits:
        forbids = [index.rules[position] for position in bits(holding & ~permits)]
        return denied(forbids[0].description, *(rule.id for rule in forbids))
    if erring:
        rule = index.rules[next(bits(erring))]
        problem = _problem(rule, actor, resource, context)
        return denied(f"rule {rule.id} cannot be evaluated: {problem}. An error denies", rule.id)
    if permits:
        granting = [index.rules[position] for position in bits(permits)]
        reason = f"{granting[0].description[:1].upper()}{granting[0].description[1:]}"
        ids = tuple(rule.id for rule in granting)
        return PolicyDecision(True, ids, version, f"{reason} (policy {version}).")
    hint = resource.attributes.get("denial_hint")
    if not hint and (near := about & index.permits):
        hint = _near_miss(index.rules[next(bits(near))], actor, resource, context)
    return denied(f"{hint}. No rule permits it" if hint else "no rule permits it")


def _problem(rule: Rule, actor: Principal, resource: Resource, context: Mapping[str, Any]) -> str:
    """Reason that the rule cannot be evaluated."""
    clause = bind(rule, actor)
    try:
        failing(clause, resource, context) if clause else None
    except EvaluationError as error:
        return str(error)
    return "one of its conditions errs"  # Not reached while the index agrees with the conditions.


def _near_miss(rule: Rule, actor: Principal, resource: Resource, context: Mapping[str, Any]) -> str:
    """Return the reason that kept a permit about the actor from applying, where it could be
    evaluated.
    """
    clause = bind(rule, actor)
    for condition in clause.conditions if clause else ():
        # A reason is not worth an error in a decision that is made already.
        with suppress(EvaluationError):
            if not evaluate(condition, resource, context):
                return describe_failure(condition, resource, context)
    return ""


def visibility(
    snapshot: PolicySnapshot,
    actor: Principal,
    action: str,
    context: Mapping[str, Any] | None = None,
) -> Visibility:
    """Return the input of a queryset filter: the clauses about `actor` and `action`, with the
    conditions on the context decided.
    """
    if not scope_allows(actor.scopes, action):
        return Visibility()
    context = _NOTHING if context is None else context
    permits: list[Clause] = []
    forbids: list[Clause] = []
    for rule in snapshot.by_action.get(action, ()):
        clause = bind(rule, actor)
        if clause is not None:
            settled = _settle(clause, context)
            (permits if rule.effect is Effect.PERMIT else forbids).append(settled)
    return Visibility(tuple(permits), tuple(forbids))


_NO_RESOURCE = Resource("")


def _settle(clause: Clause, context: Mapping[str, Any]) -> Clause:
    """The clause without its conditions on the context, and what they came to."""
    open_conditions = []
    lapsed, error = False, ""
    for condition in clause.conditions:
        if not condition.attribute.startswith("context."):
            open_conditions.append(condition)
            continue
        try:
            lapsed |= not evaluate(condition, _NO_RESOURCE, context)
        except EvaluationError as problem:
            error = error or str(problem)
    return replace(clause, conditions=tuple(open_conditions), lapsed=lapsed, error=error)


def may_know_of(
    snapshot: PolicySnapshot,
    actor: Principal,
    action: str,
    resource: Resource,
    context: Mapping[str, Any] | None = None,
) -> bool:
    """True when a refusal may say "not permitted" (403); otherwise it must say "not found" (404).

    The owner's sight counts, not the token's: scopes narrow what a token does, and a refusal for
    want of a scope should say so. Nothing is hidden when no particular object is named. An actor
    knows of the departments that it belongs to: keys, too, which no rule lets view departments.
    """
    verb = action.partition(":")[2]
    if verb in CREATING_VERBS:
        if resource.department is None or resource.department in actor.departments:
            return True
        target = Resource("department", name=resource.department, department=resource.department)
    elif resource.id or resource.name:
        target = resource
    else:
        return True
    view: Action | None = VIEW_ACTIONS.get(target.type)
    if view is None:
        return False
    return decide(snapshot, replace(actor, scopes=None), view, target, context).allowed
