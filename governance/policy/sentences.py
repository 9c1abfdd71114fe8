"""Decisions in words. Knows no Django."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from governance.principals import Principal, PrincipalKind

if TYPE_CHECKING:
    from governance.policy.conditions import BoundCondition, Resource

_VERBS = {"deployment:invoke": "use"}


def actor_words(actor: Principal) -> str:
    """How a sentence begins: an API key speaks for its department."""
    if actor.kind is PrincipalKind.KEY and actor.department is not None:
        return f"Department {actor.department}"
    if actor.kind is PrincipalKind.SERVICE:
        return f"Service {actor.name}"
    if actor.kind is PrincipalKind.ANONYMOUS:
        return "Someone who is not signed in"
    return actor.name


def resource_words(resource: Resource) -> str:
    """`deployment docstring-writer`, `release 7`, or `model in department clinical`."""
    if known := resource.name or resource.id:
        return f"{resource.type} {known}"
    if resource.department is not None:
        return f"{resource.type} in department {resource.department}"
    return resource.type


def action_words(action: str, resource: Resource) -> str:
    """`use deployment docstring-writer`; `create job for model sentiment`."""
    kind, _, verb = action.partition(":")
    words = _VERBS.get(action, verb.replace("_", " "))
    if kind == resource.type:
        return f"{words} {resource_words(resource)}"
    return f"{words} {kind} for {resource_words(resource)}"


def denial(actor: Principal, action: str, resource: Resource, why: str, version: int) -> str:
    """The sentence of a refusal, with the number of the policy that refused."""
    asked = action_words(action, resource)
    return f"{actor_words(actor)} may not {asked}: {why} (policy {version})."


def scope_denial(actor: Principal) -> str:
    """Why a token's scopes leave no room."""
    scopes = ", ".join(sorted(actor.scopes or ())) or "nothing"
    return f"its token is limited to {scopes}"


def describe_failure(
    condition: BoundCondition, resource: Resource, context: Mapping[str, Any]
) -> str:
    """What about the resource, or the moment, kept a permit from applying."""
    if condition.attribute == "department":
        owner = resource.department
        return "it belongs to no department" if owner is None else f"it belongs to {owner}"
    if condition.attribute.startswith("context."):
        name = condition.attribute.removeprefix("context.")
        return f"the request's {name.replace('_', ' ')} is {_value_words(context.get(name))}"
    actual = resource.attributes.get(condition.attribute)
    return f"its {condition.attribute.replace('_', ' ')} is {_value_words(actual)}"


def _value_words(value: Any) -> str:
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(sorted(str(item) for item in value)) or "empty"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not given" if value is None else str(value)
