"""Explanations of decisions, rule by rule, and rules as sentences."""

from __future__ import annotations

from typing import Any

import pytest

from governance.policy.engine import PolicySnapshot, Resource, decide
from governance.policy.rules import parse_rules
from governance.policy.sentences import rule_words
from governance.policy.trace import RuleTrace, RuleVerdict, explain
from governance.principals import ActorRole, Principal, PrincipalKind

LEAD = Principal(
    PrincipalKind.PERSON,
    "1",
    "Lea",
    roles=frozenset({ActorRole("lead", "clinical"), ActorRole("viewer", "finance")}),
    person_id=1,
)
DEPLOYMENT = Resource(
    "deployment",
    id="1",
    name="writer",
    department="finance",
    attributes={"environment": "staging", "departments": ["finance"], "owner": 1},
)


def rule(number: int, **changes: Any) -> dict[str, Any]:
    base = {
        "id": f"rule-{number}",
        "effect": "permit",
        "description": "some words",
        "principal": {"kinds": ["person"]},
        "actions": ["deployment:invoke"],
    }
    return base | changes


def where(attribute: str, operator: str, value: Any = None) -> list[dict[str, Any]]:
    return [{"attribute": attribute, "operator": operator, "value": value}]


def traced(*rules: dict[str, Any], context: dict[str, Any] | None = None) -> list[RuleTrace]:
    snapshot = PolicySnapshot.from_rules(1, list(rules))
    return explain(snapshot, LEAD, "deployment:invoke", DEPLOYMENT, context)


def test_every_rule_about_the_action_says_what_became_of_it() -> None:
    traces = traced(
        rule(0, principal={"roles": ["admin"]}),
        rule(1, resource_types=["model", "version"]),
        rule(2, principal={"department_roles": ["lead"]}),
        rule(3, conditions=where("environment", "eq", "production")),
        rule(4, conditions=where("risk", "eq", "high"), effect="forbid"),
        rule(5),
        rule(6, actions=["model:view"]),
        rule(7, conditions=where("context.tokens", "lte", 10)),
    )
    assert [(trace.rule, trace.verdict.value, trace.why) for trace in traces] == [
        ("rule-0", "other_actors", "it is about admins"),
        ("rule-1", "other_resources", "it is about model, version, not deployment"),
        ("rule-2", "fails", "department is finance"),
        ("rule-3", "fails", "environment is staging"),
        ("rule-4", "errs", "it asks for risk, which is not stated"),
        ("rule-5", "holds", ""),
        ("rule-7", "errs", "it asks for context.tokens, which is not stated"),
    ]
    assert [trace.applies for trace in traces][:3] == [False, False, True]


def test_each_condition_says_what_it_wanted_and_what_it_found() -> None:
    conditions = [
        *where("environment", "in", ["production", "staging"]),
        *where("departments", "same_department"),
        *where("owner", "is_self"),
        *where("context.tokens", "lte", 10),
    ]
    [trace] = traced(
        rule(0, principal={"member_roles": ["lead"]}, conditions=conditions),
        context={"tokens": 11},
    )
    assert trace.verdict is RuleVerdict.FAILS
    found = [(c.attribute, c.value, c.actual, c.holds) for c in trace.conditions]
    assert found == [
        ("environment", ["production", "staging"], "staging", True),
        ("departments", ["clinical"], ["finance"], False),
        ("owner", 1, 1, True),
        ("context.tokens", 10, 11, False),
    ]
    assert [condition.words for condition in trace.conditions] == [
        "its environment is one of production, staging",
        "its departments include clinical",
        "they are its owner",
        "the request's tokens are at most 10",
    ]


def test_an_error_outweighs_a_condition_that_fails() -> None:
    conditions = [*where("environment", "eq", "production"), *where("risk", "eq", "high")]
    [trace] = traced(rule(0, conditions=conditions))
    assert trace.verdict is RuleVerdict.ERRS
    assert [condition.holds for condition in trace.conditions] == [False, None]


def test_the_decision_follows_from_the_trace() -> None:
    rules = [rule(0), rule(1, effect="forbid", conditions=where("owner", "is_self"))]
    snapshot = PolicySnapshot.from_rules(1, rules)
    traces = explain(snapshot, LEAD, "deployment:invoke", DEPLOYMENT)
    decision = decide(snapshot, LEAD, "deployment:invoke", DEPLOYMENT)
    held = [t.rule for t in traces if t.verdict is RuleVerdict.HOLDS and t.effect == "forbid"]
    assert decision.rules == tuple(held) == ("rule-1",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "People may use deployments."),
        (
            {"principal": {"roles": ["reviewer"], "specialties": ["security", "privacy"]}},
            "Reviewers for security and privacy may use deployments.",
        ),
        (
            {
                "principal": {"member_roles": ["lead", "key"], "departments": ["clinical"]},
                "effect": "forbid",
                "actions": ["deployment:invoke", "deployment:view", "model:view"],
                "conditions": [
                    *where("context.client_address", "not_in_network", ["10.0.0.0/8"]),
                    *where("shared", "is_true"),
                ],
            },
            "Leads and API keys of clinical may never use deployments, and view deployments and "
            "models if the request's client address is not in 10.0.0.0/8 and it is shared.",
        ),
        (
            {"principal": {"kinds": ["service"], "services": ["scim"]}, "actions": ["audit:view"]},
            "The service scim may view the audit log.",
        ),
        (
            {"principal": {"department_roles": ["lead"], "kinds": ["person"]}},
            "Leads of the owning department (people only) may use deployments.",
        ),
        (
            {"actions": ["person:view"], "resource_types": ["person"]},
            "People may view people, on people only.",
        ),
        (
            {"actions": ["model:view"], "resource_types": ["version"]},
            "People may view models, on versions only.",
        ),
        (
            {"actions": ["key:view", "job:view"], "resource_types": ["key"], "effect": "forbid"},
            "People may never view API keys and jobs, on API keys only.",
        ),
        (
            {"conditions": where("departments", "contains_any", ["hr", "legal, finance"])},
            'People may use deployments if its departments include one of "legal, finance", hr.',
        ),
        (
            {"conditions": where("task", "eq", "yes and it is shared")},
            'People may use deployments if its task is "yes and it is shared".',
        ),
        (
            {"conditions": [*where("tier", "eq", "5"), *where("tier", "eq", 5)]},
            'People may use deployments if its tier is "5" and its tier is 5.',
        ),
        (
            {"conditions": [*where("shared", "eq", "yes"), *where("shared", "eq", True)]},
            'People may use deployments if its shared is "yes" and its shared is yes.',
        ),
        (
            {"principal": {"kinds": ["service"], "services": ["scim and sso"]}},
            'The service "scim and sso" may use deployments.',
        ),
        (
            {"principal": {"roles": ["admin", "reviewer"], "specialties": ["security"]}},
            "Admins for security and reviewers for security may use deployments.",
        ),
    ],
)
def test_a_rule_reads_as_a_sentence(changes: dict[str, Any], words: str) -> None:
    [parsed] = parse_rules([rule(0, **changes)])
    assert rule_words(parsed) == words
