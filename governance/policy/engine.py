"""Policy decisions: pure functions over an immutable snapshot. Knows no Django.

Default deny; one forbid outweighs every permit; an evaluation error denies. `decide` answers about
one resource and `visibility` about all of them, from the same bound clauses, so that a list shows
exactly what single decisions would let through.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from governance.permissions import CREATING_VERBS, VIEW_ACTIONS, Action
from governance.policy.rules import Effect, Matcher, Operator, Rule, parse_rules
from governance.policy.sentences import denial, describe_failure, scope_denial
from governance.principals import Principal, PrincipalKind

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Resource:
    """What is acted on. `department` is the slug of its owner, None when it has none.

    `attributes` answer the rules' conditions; `denial_hint` among them replaces the generic
    explanation in a refusal ("its release names engineering").
    """

    type: str
    id: str = ""
    name: str = ""
    department: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """The verdict, the ids of the rules that made it, and a sentence a person can read."""

    allowed: bool
    rules: tuple[str, ...]
    policy_version: int
    reason: str


@dataclass(frozen=True, slots=True)
class BoundCondition:
    """A condition with the actor filled in. Operator `same_department` has become `names_any`."""

    attribute: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class Clause:
    """A rule as it reads for one actor: every condition must hold on the resource."""

    rule: str
    resource_types: tuple[str, ...]
    conditions: tuple[BoundCondition, ...]


@dataclass(frozen=True, slots=True)
class Visibility:
    """What an actor may do an action on: what some permit and no forbid matches."""

    permits: tuple[Clause, ...] = ()
    forbids: tuple[Clause, ...] = ()

    def for_type(self, resource_type: str) -> Visibility:
        """Only the clauses that are about this resource type."""
        return Visibility(
            permits=tuple(c for c in self.permits if _covers(c.resource_types, resource_type)),
            forbids=tuple(c for c in self.forbids if _covers(c.resource_types, resource_type)),
        )


class EvaluationError(Exception):
    """A condition could not be evaluated; the decision denies."""


@dataclass(frozen=True)
class PolicySnapshot:
    """An immutable version of the rules, indexed by action. Version 0: no policy is active."""

    version: int
    rules: tuple[Rule, ...] = ()
    by_action: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict, repr=False)

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


def _covers(resource_types: Collection[str], resource_type: str) -> bool:
    return not resource_types or resource_type in resource_types


def scope_allows(scopes: frozenset[str] | None, action: str) -> bool:
    """Whether a token's scopes leave room for the action.

    A scope on a resource includes viewing that resource: `deployment:invoke` may also list.
    """
    if scopes is None or action in scopes:
        return True
    kind, _, verb = action.partition(":")
    return verb == "view" and any(scope.startswith(f"{kind}:") for scope in scopes)


def _departments_held(actor: Principal, roles: Collection[str]) -> frozenset[str]:
    held = {r.department for r in actor.roles if r.role in roles and r.department is not None}
    if actor.kind is PrincipalKind.KEY and actor.department is not None and "key" in roles:
        held.add(actor.department)
    return frozenset(held)


def _holds_platform_role(actor: Principal, matcher: Matcher) -> bool:
    return any(
        held.department is None
        and held.role in matcher.roles
        and (not matcher.specialities or held.speciality in matcher.specialities)
        for held in actor.roles
    )


def _bind(rule: Rule, actor: Principal) -> Clause | None:
    """The rule as it reads for this actor; None when it is not about them."""
    matcher = rule.principal
    if matcher.kinds and actor.kind not in matcher.kinds:
        return None
    if matcher.services and actor.id not in matcher.services:
        return None
    if matcher.roles and not _holds_platform_role(actor, matcher):
        return None
    conditions: list[BoundCondition] = []
    departments = actor.departments
    if named := matcher.department_roles or matcher.member_roles:
        departments = _departments_held(actor, named)
        if not departments:
            return None
        if matcher.department_roles:
            conditions.append(BoundCondition("department", "names_any", departments))
    for condition in rule.conditions:
        operator, value = condition.operator.value, condition.value
        if condition.operator is Operator.SAME_DEPARTMENT:
            operator, value = "names_any", departments
        elif condition.operator is Operator.IS_SELF:
            operator, value = "eq", actor.person_id
        conditions.append(BoundCondition(condition.attribute, operator, value))
    return Clause(rule.id, rule.resource_types, tuple(conditions))


def _value_of(attribute: str, resource: Resource, context: Mapping[str, Any]) -> Any:
    if attribute == "department":
        return resource.department
    source, name = resource.attributes, attribute
    if attribute.startswith("context."):
        source, name = context, attribute.removeprefix("context.")
    if name not in source:
        raise EvaluationError(f"it asks for {attribute}, which is not stated")
    return source[name]


def holds(condition: BoundCondition, actual: Any) -> bool:
    """Whether the condition holds for an attribute's value. None equals nothing.

    Raises:
        EvaluationError: the value is not of a kind that the operator can compare.
    """
    several = isinstance(actual, (list, tuple, set, frozenset))
    wanted = condition.value
    match condition.operator:
        case "names_any":
            return any(item in wanted for item in actual) if several else actual in wanted
        case "contains" | "contains_any" if several:
            return any(
                item in actual for item in ([wanted], wanted)[condition.operator != "contains"]
            )
        case "eq" if not several:
            return actual is not None and bool(actual == wanted)
        case "ne" if not several:
            return actual is None or bool(actual != wanted)
        case "in" if not several:
            return actual is not None and actual in wanted
        case "is_true" if actual is None or isinstance(actual, bool):
            return bool(actual)
        case "lte" | "gte" if _comparable(actual, wanted):
            return bool(actual <= wanted if condition.operator == "lte" else actual >= wanted)
    raise EvaluationError(f"it cannot compare {condition.attribute} by {condition.operator}")


def _comparable(left: Any, right: Any) -> bool:
    numbers = (int, float)
    return (isinstance(left, numbers) and isinstance(right, numbers)) or (
        isinstance(left, str) and isinstance(right, str)
    )


def _failing(
    clause: Clause, resource: Resource, context: Mapping[str, Any]
) -> list[BoundCondition]:
    """The conditions that do not hold. All are evaluated, so that an error never hides."""
    return [
        condition
        for condition in clause.conditions
        if not holds(condition, _value_of(condition.attribute, resource, context))
    ]


def decide(
    snapshot: PolicySnapshot,
    actor: Principal,
    action: str,
    resource: Resource,
    context: Mapping[str, Any] | None = None,
) -> PolicyDecision:
    """Whether `actor` may do `action` on `resource`, by which rules, and why.

    Never raises: what cannot be evaluated is denied, with the reason.
    """
    version = snapshot.version

    def denied(why: str, *rules: str) -> PolicyDecision:
        return PolicyDecision(False, rules, version, denial(actor, action, resource, why, version))

    if version == 0:
        return denied("no policy is active, so everything is refused; run `manage.py bootstrap`")
    if not scope_allows(actor.scopes, action):
        return denied(scope_denial(actor))
    permits: list[Rule] = []
    forbids: list[Rule] = []
    errors: list[tuple[Rule, str]] = []
    near_miss = ""
    for rule in snapshot.by_action.get(action, ()):
        if not _covers(rule.resource_types, resource.type):
            continue
        clause = _bind(rule, actor)
        if clause is None:
            continue
        try:
            failing = _failing(clause, resource, context or _NOTHING)
        except (EvaluationError, TypeError) as error:
            errors.append((rule, str(error)))
            continue
        if not failing:
            (permits if rule.effect is Effect.PERMIT else forbids).append(rule)
        elif rule.effect is Effect.PERMIT and not near_miss:
            near_miss = describe_failure(failing[0], resource)
    if forbids:
        return denied(forbids[0].description, *(rule.id for rule in forbids))
    if errors:
        rule, problem = errors[0]
        return denied(f"rule {rule.id} cannot be evaluated: {problem}. An error denies", rule.id)
    if permits:
        reason = f"{permits[0].description[:1].upper()}{permits[0].description[1:]}"
        ids = tuple(rule.id for rule in permits)
        return PolicyDecision(True, ids, version, f"{reason} (policy {version}).")
    hint = resource.attributes.get("denial_hint") or near_miss
    return denied(f"{hint}. No rule permits it" if hint else "no rule permits it")


def visibility(snapshot: PolicySnapshot, actor: Principal, action: str) -> Visibility:
    """What a queryset filter is built from: the clauses that are about `actor` and `action`."""
    if not scope_allows(actor.scopes, action):
        return Visibility()
    permits: list[Clause] = []
    forbids: list[Clause] = []
    for rule in snapshot.by_action.get(action, ()):
        clause = _bind(rule, actor)
        if clause is not None:
            (permits if rule.effect is Effect.PERMIT else forbids).append(clause)
    return Visibility(tuple(permits), tuple(forbids))


def may_know_of(
    snapshot: PolicySnapshot, actor: Principal, action: str, resource: Resource
) -> bool:
    """Whether a refusal may say "not permitted" (403), or must say "not found" (404).

    The owner's sight counts, not the token's: scopes narrow what a token does, and a refusal for
    want of a scope should say so. Nothing is hidden when no particular object is named.
    """
    verb = action.partition(":")[2]
    if verb in CREATING_VERBS:
        if resource.department is None:
            return True
        target = Resource("department", name=resource.department, department=resource.department)
    elif resource.id or resource.name:
        target = resource
    else:
        return True
    view: Action | None = VIEW_ACTIONS.get(target.type)
    if view is None:
        return False
    return decide(snapshot, replace(actor, scopes=None), view, target).allowed
