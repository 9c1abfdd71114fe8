"""Trace of a decision, rule by rule. Imports no Django.

A decision names the rules that decided it; a trace gives the result of every rule about the action,
with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from governance.policy.engine import PolicySnapshot
from governance.policy.rule_conditions import (
    BoundCondition,
    EvaluationError,
    Resource,
    bind,
    covers,
    holds,
    value_of,
)
from governance.policy.rules import Rule
from governance.policy.sentences import condition_words, matcher_words, value_words
from governance.principals import Principal

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class RuleVerdict(StrEnum):
    """Result of a rule: `holds` permits or forbids; `errs` denies; the others have no effect."""

    HOLDS = "holds"
    FAILS = "fails"
    ERRS = "errs"
    OTHER_ACTORS = "other_actors"
    OTHER_RESOURCES = "other_resources"


@dataclass(frozen=True, slots=True)
class ConditionTrace:
    """A condition bound to the actor, and its result for the resource.

    `actual` is the attribute's value, None if not stated; `holds` is None after an error. `words`
    describes the condition ("its environment is production"), `why` the value or the error.
    """

    attribute: str
    operator: str
    value: Any
    actual: Any
    holds: bool | None
    words: str
    why: str


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """A rule about the action and its result. `why` is a clause: "its environment is staging"."""

    rule: str
    effect: str
    description: str
    verdict: RuleVerdict
    why: str
    conditions: tuple[ConditionTrace, ...] = ()

    @property
    def applies(self) -> bool:
        """Return whether the rule is about this actor and this type of resource."""
        return self.verdict not in {RuleVerdict.OTHER_ACTORS, RuleVerdict.OTHER_RESOURCES}


def explain(
    snapshot: PolicySnapshot,
    actor: Principal,
    action: str,
    resource: Resource,
    context: Mapping[str, Any] | None = None,
) -> list[RuleTrace]:
    """Return the result of every rule about the action, in the policy's order.

    They determine the decision: denied if a forbid holds or any rule errs, else permitted if a
    permit holds. A token's scopes are not rules; `decide` checks them first.
    """
    context = _NOTHING if context is None else context
    return [_trace(rule, actor, resource, context) for rule in snapshot.by_action.get(action, ())]


def _trace(
    rule: Rule, actor: Principal, resource: Resource, context: Mapping[str, Any]
) -> RuleTrace:
    def result(
        verdict: RuleVerdict, why: str, conditions: tuple[ConditionTrace, ...] = ()
    ) -> RuleTrace:
        return RuleTrace(rule.id, rule.effect.value, rule.description, verdict, why, conditions)

    if not covers(rule.resource_types, resource.type):
        types = ", ".join(rule.resource_types)
        return result(RuleVerdict.OTHER_RESOURCES, f"it is about {types}, not {resource.type}")
    clause = bind(rule, actor)
    if clause is None:
        return result(RuleVerdict.OTHER_ACTORS, f"it is about {matcher_words(rule.principal)}")
    conditions = tuple(_trace_condition(c, resource, context) for c in clause.conditions)
    for condition in conditions:
        if condition.holds is None:
            return result(RuleVerdict.ERRS, condition.why, conditions)
    for condition in conditions:
        if not condition.holds:
            return result(RuleVerdict.FAILS, condition.why, conditions)
    return result(RuleVerdict.HOLDS, "every condition holds" if conditions else "", conditions)


def _trace_condition(
    condition: BoundCondition, resource: Resource, context: Mapping[str, Any]
) -> ConditionTrace:
    actual = None
    verdict: bool | None = None
    try:
        actual = value_of(condition.attribute, resource, context)
        verdict = holds(condition, actual)
        why = f"{condition.attribute} is {value_words(actual)}"
    except EvaluationError as error:
        why = str(error)
    return ConditionTrace(
        attribute=condition.attribute,
        operator=condition.operator,
        value=_plain(condition.value),
        actual=_plain(actual),
        holds=verdict,
        words=condition_words(condition),
        why=why,
    )


def _plain(value: Any) -> Any:
    """Return the value for JSON: sets become sorted lists."""
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
