"""Summarize rules in short lines: one rule at a time, or all rules by resource. Imports no Django.

A line has at most `WORDS_MAX` words. A page folds the complete actions and conditions under it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from governance.english import counted
from governance.permissions import Action
from governance.policy.rules import Effect, Rule
from governance.policy.sentences import (
    actions_words,
    condition_words,
    join,
    matcher_words,
    rule_subject,
    rule_words,
)
from governance.policy.terms import plural, verb_alone

WORDS_MAX = 25
_SUBJECT_MAX = 14


@dataclass(frozen=True, slots=True)
class RuleSummary:
    """A rule in words: a short `line`, and all its `actions` as pairs of a resource and its verbs.

    `is_whole` is true if the line has every action and condition.
    """

    line: str
    subject: str
    actions: list[tuple[str, str]]
    conditions: list[str]
    is_whole: bool

    @property
    def lines(self) -> list[str]:
        """All of the rule in lines, such as `Batches: cancel and create`."""
        return [self.subject, *(": ".join(each) for each in self.actions), *self.conditions]


@dataclass(frozen=True, slots=True)
class Holder:
    """Principals to whom a rule permits or forbids an action, and its conditions, in words."""

    rule: str
    words: str


@dataclass(frozen=True, slots=True)
class ActionRules:
    """Principals that may do an action, and those that never may."""

    action: str
    verb: str
    permitted: list[Holder] = field(default_factory=list)
    forbidden: list[Holder] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ResourceRules:
    """Rules about one type of resource, by action."""

    title: str
    actions: list[ActionRules]

    @property
    def verbs(self) -> str:
        """The actions in a few words: `create, stop and view`."""
        return join([each.verb.lower() for each in self.actions])


def rule_summary(rule: Rule) -> RuleSummary:
    """Return the summary of a rule."""
    whole = rule_words(rule)
    line = whole if _count(whole) <= WORDS_MAX else _brief(rule)
    by_resource: dict[str, list[str]] = {}
    for action in rule.actions:
        by_resource.setdefault(plural(action.partition(":")[0]), []).append(verb_alone(action))
    conditions = [f"Only if {condition_words(each)}." for each in rule.conditions]
    if rule.resource_types:
        kinds = join([plural(kind) for kind in rule.resource_types])
        conditions.insert(0, f"Only on {kinds}.")
    return RuleSummary(
        line=line,
        subject=f"{rule_subject(rule)}:",
        actions=[(_capital(kind), join(verbs)) for kind, verbs in by_resource.items()],
        conditions=conditions,
        is_whole=line == whole,
    )


def rules_by_resource(rules: Iterable[Rule]) -> list[ResourceRules]:
    """Return all actions that the rules name, grouped by resource, each with its rules."""
    actions: dict[str, ActionRules] = {}
    for rule in rules:
        for action in rule.actions:
            entry = actions.setdefault(action, ActionRules(action, _capital(verb_alone(action))))
            side = entry.permitted if rule.effect is Effect.PERMIT else entry.forbidden
            side.append(Holder(rule.id, _holder(rule, action)))
    kinds: dict[str, list[ActionRules]] = {}
    for action in Action:
        if action in actions:
            kinds.setdefault(action.partition(":")[0], []).append(actions[action])
    groups = [
        ResourceRules(_capital(plural(kind).removeprefix("the ")), each)
        for kind, each in kinds.items()
    ]
    return sorted(groups, key=lambda group: group.title.lower())


def _brief(rule: Rule) -> str:
    """Return a rule's sentence with as many actions as fit, and the number of the others."""
    subject = _cut(rule_subject(rule), _SUBJECT_MAX)
    number = len(rule.conditions) + bool(rule.resource_types)
    end = f", under {counted(number, 'condition')}." if number else "."
    for shown in range(len(rule.actions), 0, -1):
        more = len(rule.actions) - shown
        rest = f", and {counted(more, 'more action')}" if more else ""
        line = f"{subject} {actions_words(rule.actions[:shown])}{rest}{end}"
        if _count(line) <= WORDS_MAX:
            break
    return line


def _holder(rule: Rule, action: str) -> str:
    who = matcher_words(rule.principal)
    kinds = [kind for kind in rule.resource_types if kind != action.partition(":")[0]]
    scope = f", on {join([plural(kind) for kind in rule.resource_types])} only" if kinds else ""
    terms = " and ".join(condition_words(each) for each in rule.conditions)
    text = _capital(f"{who}{scope}{f', if {terms}' if terms else ''}")
    if _count(text) <= WORDS_MAX:
        return text
    number = len(rule.conditions)
    term = f", under {counted(number, 'condition')}" if number else ""
    return _cut(_capital(f"{who}{scope}"), WORDS_MAX - 3) + term


def _count(text: str) -> int:
    return len(text.split())


def _cut(text: str, most: int) -> str:
    words = text.split()
    return text if len(words) <= most else f"{' '.join(words[:most])}…"


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
