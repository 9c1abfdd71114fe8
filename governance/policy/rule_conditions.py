"""Evaluate a rule's conditions one by one. Does not import Django.

This module is the definition. `index` evaluates all rules at once with the same results; tests
compare the two with each other and with Cedar.

| operator | holds if the attribute … | if null | error if the attribute is … |
|---|---|---|---|
| `eq`, `in` | is the value, is one of the values | no | of another kind than the value |
| `ne`, `not_in` | is not the value, is none of the values | yes | of another kind than the value |
| `contains` | is a collection that has the value | error | not a collection |
| `contains_any` | is a collection that has one of the values | error | not a collection |
| `lte`, `gte` | is at most, at least the value | error | not, like the value, a number or "HH:MM" |
| `in_network` | is an address in one of the networks | error | not an address |
| `not_in_network` | is an address in none of the networks | error | not an address |
| `is_true` | is true | no | not a boolean |
| `same_department` | names a department where the actor holds the role | no | a number or boolean |
| `is_self` | is the ID of the acting person | no | not a number |

An attribute that is not stated at all is an error. If a rule is about the actor, all its conditions
are evaluated, even after one has failed, so that no error is missed.
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
    """The resource of an action. `department` is the slug of the owning department, or None.

    Conditions of rules read `attributes`. `denial_hint` among them replaces the generic explanation
    of a denial ("its release names engineering").
    """

    type: str
    id: str = ""
    name: str = ""
    department: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BoundCondition:
    """A condition bound to an actor: `same_department` becomes `names_any` with a set of slugs, and
    the value of `is_self` is the person's ID, or None.
    """

    attribute: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class Clause:
    """A rule bound to an actor: every condition must hold for the resource.

    In a `Visibility`, conditions on the context are already evaluated. `lapsed`: one failed, so the
    clause cannot hold, but errors of its other conditions count. `error`: reason that one erred.
    """

    rule: str
    resource_types: tuple[str, ...]
    conditions: tuple[BoundCondition, ...]
    lapsed: bool = False
    error: str = ""


class EvaluationError(Exception):
    """A condition cannot be evaluated, so the decision denies."""


def same_departments(matcher: Matcher, actor: Principal) -> frozenset[str] | None:
    """Return the departments to which `same_department` refers: those of the matcher's roles, or
    all of the actor's if it names none. None if the matcher does not match the actor.
    """
    if matcher.kinds and actor.kind not in matcher.kinds:
        return None
    if matcher.services and actor.id not in matcher.services:
        return None
    if matcher.roles and not _holds_platform_role(actor, matcher):
        return None
    roles = matcher.department_roles or matcher.member_roles
    if not roles:
        return actor.departments
    departments = {
        r.department for r in actor.roles if r.role in roles and r.department is not None
    }
    if actor.kind is PrincipalKind.KEY and actor.department is not None and "key" in roles:
        departments.add(actor.department)
    if matcher.departments:
        departments.intersection_update(matcher.departments)
    return frozenset(departments) or None


def _holds_platform_role(actor: Principal, matcher: Matcher) -> bool:
    return any(
        role.department is None
        and role.role in matcher.roles
        and (not matcher.specialties or role.specialty in matcher.specialties)
        for role in actor.roles
    )


def bind_condition(
    condition: Condition, actor: Principal, departments: frozenset[str]
) -> BoundCondition:
    """Bind the condition to an actor who holds the rule's roles in `departments`."""
    operator, value = condition.operator.value, condition.value
    if condition.operator is Operator.SAME_DEPARTMENT:
        operator, value = "names_any", departments
    elif condition.operator is Operator.IS_SELF:
        value = actor.person_id
    return BoundCondition(condition.attribute, operator, value)


def bind(rule: Rule, actor: Principal) -> Clause | None:
    """Bind the rule to an actor; None if the rule is not about them."""
    departments = same_departments(rule.principal, actor)
    if departments is None:
        return None
    conditions = [bind_condition(condition, actor, departments) for condition in rule.conditions]
    if rule.principal.department_roles:
        conditions.insert(0, BoundCondition("department", "names_any", departments))
    return Clause(rule.id, rule.resource_types, tuple(conditions))


def covers(resource_types: Collection[str], resource_type: str) -> bool:
    """Return whether a rule with these resource types applies to this type."""
    return not resource_types or resource_type in resource_types


_MISSING = object()


def value_of(attribute: str, resource: Resource, context: Mapping[str, Any]) -> Any:
    """Return the value of the attribute.

    Raises:
        EvaluationError: it is not stated.
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
        EvaluationError: the operator cannot compare this kind of value.
    """
    verdict = _HOLDS[condition.operator](condition.value, actual, kind_of(actual))
    if verdict is None:
        raise EvaluationError(
            f"it cannot compare {condition.attribute} by {condition.operator}: "
            f"{condition.attribute} is {KIND_WORDS[kind_of(actual)]}"
        )
    return verdict


# Arguments: the condition's value or values, the attribute's value, its kind. None is an error.


def _eq(value: Any, actual: Any, kind: Kind) -> bool | None:
    return _is_one_of([value], actual, kind)


def _is_one_of(values: list[Any], actual: Any, kind: Kind) -> bool | None:
    if kind is Kind.NOTHING:
        return False
    return actual in values if kind is common_kind(values) else None


def _is_none_of(values: list[Any], actual: Any, kind: Kind) -> bool | None:
    verdict = _is_one_of(values, actual, kind)
    return None if verdict is None else not verdict


def _contains_any(values: list[Any], actual: Any, kind: Kind) -> bool | None:
    if kind is not Kind.COLLECTION:
        return None
    value_kind = common_kind(values)
    return any(kind_of(item) is value_kind and item in values for item in actual)


def _ordered(value: Any, actual: Any, at_most: bool) -> bool | None:
    if (order := order_kind(value)) != order_kind(actual) or not order:
        return None
    return bool(actual <= value if at_most else actual >= value)


def _in_network(values: list[str], actual: Any, kind: Kind) -> bool | None:
    address = parse_address(actual) if kind is Kind.TEXT else None
    if address is None:
        return None
    version, number = address
    networks = [prefix_of(parse_network(text)) for text in values]
    return any(of == version and number >> drop == prefix for of, drop, prefix in networks)


def _outside_network(values: list[str], actual: Any, kind: Kind) -> bool | None:
    verdict = _in_network(values, actual, kind)
    return None if verdict is None else not verdict


def _is_true(_value: Any, actual: Any, kind: Kind) -> bool | None:
    return bool(actual) if kind in {Kind.FLAG, Kind.NOTHING} else None


def _is_self(value: int | None, actual: Any, kind: Kind) -> bool | None:
    if kind is Kind.NOTHING:
        return False
    return value is not None and actual == value if kind is Kind.NUMBER else None


def _names_any(values: frozenset[str], actual: Any, kind: Kind) -> bool | None:
    if kind is Kind.COLLECTION:
        return any(isinstance(item, str) and item in values for item in actual)
    if kind is Kind.NOTHING:
        return False
    return actual in values if kind is Kind.TEXT else None


_HOLDS: dict[str, Callable[[Any, Any, Kind], bool | None]] = {
    "eq": _eq,
    "ne": lambda value, actual, kind: _is_none_of([value], actual, kind),
    "in": _is_one_of,
    "not_in": _is_none_of,
    "contains": lambda value, actual, kind: _contains_any([value], actual, kind),
    "contains_any": _contains_any,
    "lte": lambda value, actual, kind: _ordered(value, actual, True),
    "gte": lambda value, actual, kind: _ordered(value, actual, False),
    "in_network": _in_network,
    "not_in_network": _outside_network,
    "is_true": _is_true,
    "is_self": _is_self,
    "names_any": _names_any,
}


def evaluate(condition: BoundCondition, resource: Resource, context: Mapping[str, Any]) -> bool:
    """Evaluate the condition for the resource in this context.

    Raises:
        EvaluationError: the condition cannot be evaluated.
    """
    return holds(condition, value_of(condition.attribute, resource, context))


def failed_conditions(
    clause: Clause, resource: Resource, context: Mapping[str, Any]
) -> list[BoundCondition]:
    """Return the conditions that do not hold. All are evaluated, so that no error is missed.

    Raises:
        EvaluationError: one cannot be evaluated.
    """
    return [c for c in clause.conditions if not evaluate(c, resource, context)]
