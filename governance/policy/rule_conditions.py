"""Meaning of a rule's conditions, one by one. Knows no Django.

This is the definition: `index` answers the same for all rules at once, and tests hold the two
against each other and against Cedar.

| operator | holds when the attribute … | of nothing | is an error for |
|---|---|---|---|
| `eq`, `in` | is the value, is one of the values | no | another kind than the value's |
| `ne`, `not_in` | is not | yes | another kind than the value's |
| `contains` | is a collection that has the value | error | what is no collection |
| `contains_any` | is a collection that has one of them | error | what is no collection |
| `lte`, `gte` | is at most, at least the value | error | not the value's kind: number or "HH:MM" |
| `in_network` | is an address in one of the networks | error | what is no address |
| `not_in_network` | is an address in none of them | error | what is no address |
| `is_true` | is true | no | neither yes nor no |
| `same_department` | names a department where one holds the role | no | number, yes or no |
| `is_self` | is the id of the acting person | no | no number |

An attribute that is not stated at all is an error. Every condition of a rule that is about the
actor is evaluated, whatever the others say, so that an error never hides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from governance.policy.rules import Condition, Matcher, Operator, Rule
from governance.policy.values import (
    KIND_WORDS,
    Kind,
    common_kind,
    kind_of,
    order_kind,
    parse_address,
    parse_network,
    prefix_of,
)
from governance.principals import Principal, PrincipalKind


@dataclass(frozen=True, slots=True)
class Resource:
    """The resource of an action. `department` is the slug of its owner, None when it has none.

    `attributes` answer the rules' conditions; `denial_hint` among them replaces the generic
    explanation in a refusal ("its release names engineering").
    """

    type: str
    id: str = ""
    name: str = ""
    department: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BoundCondition:
    """A condition with the actor filled in: `same_department` has become `names_any` with the set
    of slugs as its value, and `is_self` has the person's id, or None.
    """

    attribute: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class Clause:
    """A rule as it reads for one actor: every condition must hold on the resource.

    In a `Visibility` what the context decides is decided already. `lapsed`: it cannot hold, but the
    errors of its remaining conditions count. `error`: it cannot be evaluated, and why.
    """

    rule: str
    resource_types: tuple[str, ...]
    conditions: tuple[BoundCondition, ...]
    lapsed: bool = False
    error: str = ""


class EvaluationError(Exception):
    """A condition could not be evaluated; the decision denies."""


def departments_held(matcher: Matcher, actor: Principal) -> frozenset[str] | None:
    """None when a rule so matched is not about the actor; else the departments that
    `same_department` refers to: those of the roles it names, or all of the actor's.
    """
    if matcher.kinds and actor.kind not in matcher.kinds:
        return None
    if matcher.services and actor.id not in matcher.services:
        return None
    if matcher.roles and not _holds_platform_role(actor, matcher):
        return None
    named = matcher.department_roles or matcher.member_roles
    if not named:
        return actor.departments
    held = {r.department for r in actor.roles if r.role in named and r.department is not None}
    if actor.kind is PrincipalKind.KEY and actor.department is not None and "key" in named:
        held.add(actor.department)
    if matcher.departments:
        held.intersection_update(matcher.departments)
    return frozenset(held) or None


def _holds_platform_role(actor: Principal, matcher: Matcher) -> bool:
    return any(
        held.department is None
        and held.role in matcher.roles
        and (not matcher.specialties or held.specialty in matcher.specialties)
        for held in actor.roles
    )


def bind_condition(
    condition: Condition, actor: Principal, departments: frozenset[str]
) -> BoundCondition:
    """The condition as it reads for this actor, who holds the rule's roles in `departments`."""
    operator, value = condition.operator.value, condition.value
    if condition.operator is Operator.SAME_DEPARTMENT:
        operator, value = "names_any", departments
    elif condition.operator is Operator.IS_SELF:
        value = actor.person_id
    return BoundCondition(condition.attribute, operator, value)


def bind(rule: Rule, actor: Principal) -> Clause | None:
    """The rule as it reads for this actor; None when it is not about them."""
    departments = departments_held(rule.principal, actor)
    if departments is None:
        return None
    conditions = [bind_condition(condition, actor, departments) for condition in rule.conditions]
    if rule.principal.department_roles:
        conditions.insert(0, BoundCondition("department", "names_any", departments))
    return Clause(rule.id, rule.resource_types, tuple(conditions))


def covers(resource_types: Collection[str], resource_type: str) -> bool:
    """True when a rule with these resource types applies to that resource."""
    return not resource_types or resource_type in resource_types


_MISSING = object()


def value_of(attribute: str, resource: Resource, context: Mapping[str, Any]) -> Any:
    """Return the value that the condition compares.

    Raises:
        EvaluationError: it was not stated.
    """
    if attribute == "department":
        return resource.department
    source, name = resource.attributes, attribute
    if attribute.startswith("context."):
        source, name = context, attribute.removeprefix("context.")
    value = source.get(name, _MISSING)
    if value is _MISSING:
        raise EvaluationError(f"it asks for {attribute}, which is not stated")
    return value


def holds(condition: BoundCondition, actual: Any) -> bool:
    """Evaluate the condition for an attribute's value, by the table above.

    Raises:
        EvaluationError: the value is not of a kind that the operator can compare.
    """
    verdict = _HOLDS[condition.operator](condition.value, actual, kind_of(actual))
    if verdict is None:
        raise EvaluationError(
            f"it cannot compare {condition.attribute} by {condition.operator}: "
            f"{condition.attribute} is {KIND_WORDS[kind_of(actual)]}"
        )
    return verdict


# Each takes the condition's value, the attribute's and its kind; None is an error.


def _eq(wanted: Any, actual: Any, kind: Kind) -> bool | None:
    return _is_one_of([wanted], actual, kind)


def _is_one_of(wanted: list[Any], actual: Any, kind: Kind) -> bool | None:
    if kind is Kind.NOTHING:
        return False
    return actual in wanted if kind is common_kind(wanted) else None


def _is_none_of(wanted: list[Any], actual: Any, kind: Kind) -> bool | None:
    verdict = _is_one_of(wanted, actual, kind)
    return None if verdict is None else not verdict


def _contains_any(wanted: list[Any], actual: Any, kind: Kind) -> bool | None:
    if kind is not Kind.COLLECTION:
        return None
    wanted_kind = common_kind(wanted)
    return any(kind_of(item) is wanted_kind and item in wanted for item in actual)


def _ordered(wanted: Any, actual: Any, at_most: bool) -> bool | None:
    if (order := order_kind(wanted)) != order_kind(actual) or not order:
        return None
    return bool(actual <= wanted if at_most else actual >= wanted)


def _in_network(wanted: list[str], actual: Any, kind: Kind) -> bool | None:
    address = parse_address(actual) if kind is Kind.TEXT else None
    if address is None:
        return None
    version, number = address
    networks = [prefix_of(parse_network(text)) for text in wanted]
    return any(of == version and number >> drop == prefix for of, drop, prefix in networks)


def _outside_network(wanted: list[str], actual: Any, kind: Kind) -> bool | None:
    verdict = _in_network(wanted, actual, kind)
    return None if verdict is None else not verdict


def _is_true(_wanted: Any, actual: Any, kind: Kind) -> bool | None:
    return bool(actual) if kind in {Kind.FLAG, Kind.NOTHING} else None


def _is_self(wanted: int | None, actual: Any, kind: Kind) -> bool | None:
    if kind is Kind.NOTHING:
        return False
    return wanted is not None and actual == wanted if kind is Kind.NUMBER else None


def _names_any(wanted: frozenset[str], actual: Any, kind: Kind) -> bool | None:
    if kind is Kind.COLLECTION:
        return any(isinstance(item, str) and item in wanted for item in actual)
    if kind is Kind.NOTHING:
        return False
    return actual in wanted if kind is Kind.TEXT else None


_HOLDS: dict[str, Callable[[Any, Any, Kind], bool | None]] = {
    "eq": _eq,
    "ne": lambda wanted, actual, kind: _is_none_of([wanted], actual, kind),
    "in": _is_one_of,
    "not_in": _is_none_of,
    "contains": lambda wanted, actual, kind: _contains_any([wanted], actual, kind),
    "contains_any": _contains_any,
    "lte": lambda wanted, actual, kind: _ordered(wanted, actual, True),
    "gte": lambda wanted, actual, kind: _ordered(wanted, actual, False),
    "in_network": _in_network,
    "not_in_network": _outside_network,
    "is_true": _is_true,
    "is_self": _is_self,
    "names_any": _names_any,
}


def evaluate(condition: BoundCondition, resource: Resource, context: Mapping[str, Any]) -> bool:
    """Evaluate the condition for the resource in this context.

    Raises:
        EvaluationError: it cannot be evaluated.
    """
    return holds(condition, value_of(condition.attribute, resource, context))


def failing(clause: Clause, resource: Resource, context: Mapping[str, Any]) -> list[BoundCondition]:
    """The conditions that do not hold. All are evaluated, so that an error never hides.

    Raises:
        EvaluationError: one cannot be evaluated.
    """
    return [c for c in clause.conditions if not evaluate(c, resource, context)]
