"""Translate rules, actors and resources to Cedar, as an oracle for tests and a reference.

Where the two languages differ, on purpose:

- **Errors in a rule.** Cedar ignores the rule: a `forbid` with a missing attribute does not forbid.
  Here, an error in any rule about the actor denies. So our decision equals Cedar's if Cedar reports
  no error, else it is a denial (`allowed_by`).
- **All conditions are evaluated.** `a && b` stops at a false `a`; ours continues, so that errors
  are never hidden. Conditions become members of a set, all of which Cedar evaluates.
- **Kinds are distinct.** `"1" == 1` is false in Cedar without a schema; here it is an error, as in
  Cedar's own validator. An operator that Cedar types (`like`, `<=`, `||`) precedes each comparison.
- **Null.** Cedar has no null: the entity `Nothing::"none"` replaces it. Values that Cedar cannot
  express (fractions, integers over 64 bits, nested values) are left out, so using them is an error.
- **Times and addresses.** "09:30" is ordered as Cedar's `duration("9h30m")`; IPv4 addresses from
  IPv6 sockets are unwrapped first. Networks are compared by Cedar's `isInRange`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from cedarpy import AuthzResult

from governance.policy.engine import Resource
from governance.policy.rules import Condition, Matcher, Operator, Rule
from governance.policy.values import Kind, kind_of, order_kind
from governance.principals import ActorRole, Principal, PrincipalKind

_NOTHING = 'Nothing::"none"'
_NONE = {"__entity": {"type": "Nothing", "id": "none"}}
_LARGEST = 2**63 - 1
_TYPED = {
    Kind.TEXT: '({0} like "*")',
    Kind.NUMBER: f"({{0}} <= {_LARGEST})",
    Kind.FLAG: "({0} || true)",
}
_DEPARTMENT_ROLES = ("lead", "developer", "viewer", "key")


def policies(rules: Iterable[Rule]) -> str:
    """Return the rules as Cedar policies, in order: Cedar calls them `policy0`, `policy1`, …"""
    return "\n".join(_policy(rule) for rule in rules)


def _policy(rule: Rule) -> str:
    actions = ", ".join(f'Action::"{action}"' for action in dict.fromkeys(rule.actions))
    about = [_actor_tests(rule.principal)]
    if rule.resource_types:
        about.append(f"{_literals(rule.resource_types)}.contains(resource.kind__)")
    conditions = [_condition(condition, rule.principal) for condition in rule.conditions]
    if rule.principal.department_roles:
        conditions.append(_names_department("resource.department", rule.principal))
    text = f"{rule.effect}(principal, action in [{actions}], resource) when {{ "
    text += " && ".join(about) + " }"
    if conditions:
        text += f" when {{ ![{', '.join(conditions)}].contains(false) }}"
    return f"{text};"


def _actor_tests(matcher: Matcher) -> str:
    tests = []
    if matcher.kinds:
        tests.append(f"{_literals(matcher.kinds)}.contains(principal.kind)")
    if matcher.services:
        tests.append(f"{_literals(matcher.services)}.contains(principal.name)")
    if matcher.roles:
        roles = list(matcher.roles)
        if matcher.specialties:
            roles = [f"{role}/{name}" for role in matcher.roles for name in matcher.specialties]
        tests.append(f"principal.platform.containsAny({_literals(roles)})")
    if department_roles := matcher.department_roles or matcher.member_roles:
        places = f".containsAny({_literals(matcher.departments)})" if matcher.departments else ""
        alternatives = [
            f"principal.as_{role}{places}" if places else f"!principal.as_{role}.isEmpty()"
            for role in department_roles
        ]
        tests.append(f"({' || '.join(alternatives)})")
    return " && ".join(tests)


def _names_department(attribute: str, matcher: Matcher) -> str:
    departments = f"{attribute}__all"
    roles = matcher.department_roles or matcher.member_roles
    slug_sets = [f"principal.as_{role}" for role in roles] or ["principal.departments"]
    if not matcher.departments:
        return f"({' || '.join(f'{slugs}.containsAny({departments})' for slugs in slug_sets)})"
    alternatives = [
        f"({departments}.contains({_literal(slug)}) && {slugs}.contains({_literal(slug)}))"
        for slugs in slug_sets
        for slug in matcher.departments
    ]
    return f"({' || '.join(alternatives)})"


def _condition(condition: Condition, matcher: Matcher) -> str:
    operator, values = condition.operator, condition.values
    where = condition.attribute
    if not where.startswith("context."):
        where = f"resource.{where}"
    nothing = f"({where} == {_NOTHING})"
    if operator in {Operator.EQ, Operator.IN, Operator.NE, Operator.NOT_IN}:
        typed = _TYPED[kind_of(values[0])].format(where)
        listed = f"{_literals(values)}.contains({where})"
        if operator in {Operator.NE, Operator.NOT_IN}:
            return f"(if {nothing} then true else ({typed} && !{listed}))"
        return f"(if {nothing} then false else ({typed} && {listed}))"
    match operator:
        case Operator.CONTAINS:
            return f"{where}.contains({_literal(condition.value)})"
        case Operator.CONTAINS_ANY:
            return f"{where}.containsAny({_literals(values)})"
        case Operator.LTE | Operator.GTE:
            sign = "<=" if operator is Operator.LTE else ">="
            return f"({where}__order {sign} {_bound(condition.value)})"
        case Operator.IN_NETWORK | Operator.NOT_IN_NETWORK:
            address = f'(if {where}__ip like "*/*" then ip("none") else ip({where}__ip))'
            networks = " || ".join(f"{address}.isInRange(ip({_literal(net)}))" for net in values)
            return f"{'!' if operator is Operator.NOT_IN_NETWORK else ''}({networks})"
        case Operator.IS_TRUE:
            return f"(if {nothing} then false else ({where} || false))"
        case Operator.IS_SELF:
            typed = _TYPED[Kind.NUMBER].format(where)
            return f"(if {nothing} then false else ({typed} && {where} == principal.person_id))"
    return _names_department(where, matcher)


def _bound(value: int | str) -> str:
    return f'duration("{_duration(value)}")' if isinstance(value, str) else str(value)


def _duration(text: str) -> str:
    hours, minutes = text.split(":")
    return f"{int(hours)}h{int(minutes)}m"


def _literal(value: Any) -> str:
    return json.dumps(str(value) if isinstance(value, str) else value, ensure_ascii=False)


def _literals(values: Iterable[Any]) -> str:
    return f"[{', '.join(_literal(value) for value in values)}]"


def actor_entity(uid: str, actor: Principal) -> dict[str, Any]:
    """Return an actor as `Actor::"<uid>"`."""

    def where(role: str) -> list[str]:
        departments = {
            r.department for r in actor.roles if r.role == role and r.department is not None
        }
        if role == "key" and actor.kind is PrincipalKind.KEY and actor.department is not None:
            departments.add(actor.department)
        return sorted(departments)

    platform = {
        name
        for role_held in actor.roles
        if role_held.department is None
        for name in _names(role_held)
    }
    attributes = {
        "kind": actor.kind.value,
        "name": actor.id,
        "person_id": _NONE if actor.person_id is None else actor.person_id,
        "platform": sorted(platform),
        "departments": sorted(actor.departments),
        **{f"as_{role}": where(role) for role in _DEPARTMENT_ROLES},
    }
    return {"uid": {"type": "Actor", "id": uid}, "attrs": attributes, "parents": []}


def _names(role: ActorRole) -> tuple[str, str]:
    return role.role, f"{role.role}/{role.specialty}"


def resource_entity(uid: str, resource: Resource) -> dict[str, Any]:
    """Return a resource as `Thing::"<uid>"`."""
    attributes_stated = {**resource.attributes, "department": resource.department}
    attributes = {"kind__": resource.type, **attributes_of(attributes_stated)}
    return {"uid": {"type": "Thing", "id": uid}, "attrs": attributes, "parents": []}


def attributes_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes, or a context, as Cedar's JSON."""
    result: dict[str, Any] = {}
    for name, value in attributes.items():
        kind = kind_of(value)
        if kind is Kind.OTHER:
            continue
        plain = [_plain(item) for item in value] if kind is Kind.COLLECTION else _plain(value)
        result[name] = result[f"{name}__order"] = result[f"{name}__ip"] = plain
        result[f"{name}__all"] = plain
        if kind is Kind.NOTHING:
            result[f"{name}__all"] = []
        elif kind is Kind.TEXT:
            result[f"{name}__all"] = [plain]
            result[f"{name}__ip"] = value.removeprefix("::ffff:") if "." in value else value
            if order_kind(value) == "time":
                result[f"{name}__order"] = {"__extn": {"fn": "duration", "arg": _duration(value)}}
    return result


def _plain(value: Any) -> Any:
    return _NONE if value is None else value


def request(actor: str, action: str, resource: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request by the IDs of its entities."""
    return {
        "principal": f'Actor::"{actor}"',
        "action": f'Action::"{action}"',
        "resource": f'Thing::"{resource}"',
        "context": attributes_of(context),
    }


def allowed_by(result: AuthzResult) -> bool:
    """Return our decision from Cedar's: an error denies."""
    return bool(result.allowed) and not result.diagnostics.errors
