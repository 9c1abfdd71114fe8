"""Policy decisions: pure functions over an immutable snapshot. Imports no Django.

Default deny; one forbid outweighs every permit; an evaluation error denies. `decide` answers for
one resource and `visibility` for all of them, from the same bound clauses, so a list contains
exactly the rows that single decisions would permit.
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
    failed_conditions,
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
# A few dozen resource types exist; only questions about unknown types add more.
_INDEXES_MAX = 4096


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """The verdict, the IDs of the rules that decided, and the reason as a sentence."""

    allowed: bool
    rules: tuple[str, ...]
    policy_version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Visibility:
    """The resources that an actor may act on: those that match a permit and no forbid, and on which
    no clause errs.
    """

    permits: tuple[Clause, ...] = ()
    forbids: tuple[Clause, ...] = ()

    def for_type(self, resource_type: str) -> Visibility:
        """Return only the clauses about this resource type."""
        return Visibility(
            permits=tuple(c for c in self.permits if covers(c.resource_types, resource_type)),
            forbids=tuple(c for c in self.forbids if covers(c.resource_types, resource_type)),
        )


@dataclass(frozen=True)
class PolicySnapshot:
    """An immutable version of the rules, indexed by action. Version 0 means no active policy."""

    version: int
    rules: tuple[Rule, ...] = ()
    by_action: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict, repr=False)
    # Derived from the rules at first use.
    _indexes: dict[tuple[str, str], RuleIndex] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def index(self, action: str, resource_type: str) -> RuleIndex:
        """Return the rules about this action on this type of resource."""
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
        """Return a snapshot of the rules. Raises InvalidInput with all their faults."""
        parsed = parse_rules(rules)
        index: dict[str, list[Rule]] = {}
        for rule in parsed:
            for action in dict.fromkeys(rule.actions):
                index.setdefault(action.value, []).append(rule)
        frozen = MappingProxyType({action: tuple(about) for action, about in index.items()})
        return cls(version=version, rules=parsed, by_action=frozen)


NO_POLICY = PolicySnapshot(version=0)


def scope_allows(scopes: frozenset[str] | None, action: str) -> bool:
    """Return whether a token's scopes include the action.

    A scope on a resource type includes viewing it: `deployment:invoke` includes `deployment:view`.
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
    """Decide whether `actor` may do `action` on `resource`, with the rules and the reason.

    Never raises: if a rule cannot be evaluated, the decision denies, with the reason.
    """
    version = snapshot.version

    def denied(why: str, *rules: str) -> PolicyDecision:
        return PolicyDecision(False, rules, version, denial(actor, action, resource, why, version))

    if version == 0:
        return denied("no policy is active, so everything is denied; run `manage.py bootstrap`")
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
    """Return the reason that the rule cannot be evaluated."""
    clause = bind(rule, actor)
    try:
        failed_conditions(clause, resource, context) if clause else None
    except EvaluationError as error:
        return str(error)
    return "one of its conditions errs"  # Not reached while the index agrees with the conditions.


def _near_miss(rule: Rule, actor: Principal, resource: Resource, context: Mapping[str, Any]) -> str:
    """Return the first failed condition of a permit as a sentence; empty if none was evaluated and
    failed.
    """
    clause = bind(rule, actor)
    for condition in clause.conditions if clause else ():
        # The decision is already made; an error here must not replace it.
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
    """Return the clauses about `actor` and `action` for a queryset filter. Conditions on the
    context are already evaluated.
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
    """Return the clause without its conditions on the context, but with their result."""
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
    """Return whether a refusal may say "not permitted" (403); else it must say "not found" (404).

    A token's scopes do not count here, only its owner's rights: a refusal for a missing scope
    should say so. A refusal that names no particular object hides nothing. Actors know of their own
    departments; that includes keys, which no rule permits to view departments.
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
