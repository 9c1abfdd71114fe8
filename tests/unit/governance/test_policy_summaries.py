"""Short summaries of policy rules."""

from __future__ import annotations

from typing import Any

import pytest

from governance.permissions import VIEW_ACTIONS, Action
from governance.policy.rules import Rule, parse_rules
from governance.policy.summaries import WORDS_MAX, rule_summary, rules_by_resource
from governance.policy.terms import plural, verb_alone, verb_of


def rule(**changes: Any) -> Rule:
    plain = {
        "id": "r-1",
        "effect": "permit",
        "description": "d",
        "principal": {"roles": ["admin"]},
        "actions": ["model:view"],
    }
    return parse_rules([plain | changes])[0]


def test_a_short_rule_is_one_sentence() -> None:
    summary = rule_summary(rule(actions=["key:create", "key:revoke", "review:comment"]))
    assert summary.line == "Admins may create and revoke API keys, and comment on reviews."
    assert summary.is_whole


def test_a_long_rule_is_a_line_a_table_and_conditions() -> None:
    summary = rule_summary(
        rule(
            effect="forbid",
            actions=[*Action],
            resource_types=["model"],
            conditions=[{"attribute": "reporter", "operator": "is_self"}],
        )
    )
    assert len(summary.line.split()) <= WORDS_MAX
    assert summary.line.startswith("Admins may never export the audit log, view ")
    assert summary.line.endswith(" more actions, under 2 conditions.")
    assert ("Batches", "cancel, create and view") in summary.actions
    assert summary.conditions == ["Only on models.", "Only if they are its reporter."]
    assert not summary.is_whole
    shown = [summary.subject, *(": ".join(each) for each in summary.actions), *summary.conditions]
    assert summary.lines == shown


@pytest.mark.parametrize("departments", [1, 200])
def test_a_line_stays_short_however_many_departments_it_names(departments: int) -> None:
    slugs = [f"d{n}" for n in range(departments)]
    values = [f"value {n}" for n in range(departments)]
    long = rule(
        principal={"member_roles": ["lead", "developer"], "departments": slugs},
        actions=["model:view", "model:create"],
        conditions=[{"attribute": "tier", "operator": "in", "value": values}],
    )
    assert len(rule_summary(long).line.split()) <= WORDS_MAX
    for group in rules_by_resource([long]):
        for action in group.actions:
            assert all(len(holder.words.split()) <= WORDS_MAX for holder in action.permitted)


def test_every_resource_has_a_plural_and_every_action_a_verb() -> None:
    kinds = {action.partition(":")[0] for action in Action} | set(VIEW_ACTIONS)
    plurals = {plural(kind) for kind in kinds}
    assert len(plurals) == len(kinds)
    assert not any(name.endswith(("chs", "ys")) for name in plurals - {"API keys"})
    assert not any("_" in name for name in plurals)
    for action in Action:
        assert verb_of(action).replace(" ", "").isalpha()
        assert verb_of(action).startswith(verb_alone(action))
