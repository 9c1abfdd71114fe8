"""The engine alone: no Django, no database."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from governance.errors import InvalidInput
from governance.policy import engine, index
from governance.policy.engine import (
    NO_POLICY,
    PolicySnapshot,
    Resource,
    decide,
    may_know_of,
    scope_allows,
)
from governance.principals import (
    ANONYMOUS,
    ActorRole,
    Principal,
    PrincipalKind,
    service_principal,
)

ROOT = Path(__file__).resolve().parents[3]
DEPLOYMENT = Resource(
    "deployment",
    id="1",
    name="docstring-writer",
    department="engineering",
    attributes={
        "departments": ["engineering"],
        "visibility": "organization",
        "denial_hint": "its release names engineering",
    },
)


def rule(**changes: Any) -> dict[str, Any]:
    """A rule that permits admins to view models, changed as asked."""
    base = {
        "id": "some-rule",
        "effect": "permit",
        "description": "some words",
        "principal": {"roles": ["admin"]},
        "actions": ["model:view"],
    }
    return base | changes


def snapshot(*rules: dict[str, Any]) -> PolicySnapshot:
    return PolicySnapshot.from_rules(1, list(rules))


def ada(*roles: ActorRole, scopes: frozenset[str] | None = None) -> Principal:
    return Principal(
        kind=PrincipalKind.PERSON,
        id="1",
        name="Ada",
        roles=frozenset(roles),
        person_id=1,
        scopes=scopes,
    )


def key(department: str, *scopes: str) -> Principal:
    return Principal(
        kind=PrincipalKind.KEY,
        id="9",
        name="app",
        department=department,
        scopes=frozenset(scopes),
        key_id=9,
    )


ADMIN = ActorRole("admin")
MODEL = Resource("model", id="1", name="sentiment", department="clinical")


@pytest.fixture(scope="module")
def default() -> PolicySnapshot:
    import yaml

    document = yaml.safe_load((ROOT / "governance/policy/default.yaml").read_text())
    return PolicySnapshot.from_rules(1, document["rules"])


def test_without_a_rule_everything_is_denied() -> None:
    decision = decide(snapshot(), ada(ADMIN), "model:view", MODEL)
    assert not decision.allowed
    assert decision.reason == "Ada may not view model sentiment: no rule permits it (policy 1)."


def test_without_a_policy_the_refusal_names_the_command_that_mends_it() -> None:
    decision = decide(NO_POLICY, ada(ADMIN), "model:view", MODEL)
    assert not decision.allowed
    assert "manage.py bootstrap" in decision.reason


def test_a_permit_names_its_rule_and_its_policy() -> None:
    decision = decide(snapshot(rule()), ada(ADMIN), "model:view", MODEL)
    assert (decision.allowed, decision.rules, decision.policy_version) == (True, ("some-rule",), 1)
    assert decision.reason == "Some words (policy 1)."


def test_one_forbid_outweighs_every_permit_in_either_order() -> None:
    permit, forbid = rule(), rule(id="no", effect="forbid", description="frozen for the audit")
    for rules in ((permit, forbid), (forbid, permit)):
        decision = decide(snapshot(*rules), ada(ADMIN), "model:view", MODEL)
        assert not decision.allowed
        assert decision.rules == ("no",)
        assert "frozen for the audit" in decision.reason


@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_an_attribute_that_is_not_stated_denies(effect: str) -> None:
    condition = {"attribute": "risk", "operator": "eq", "value": "high"}
    asking = rule(id="asking", effect=effect, conditions=[condition])
    decision = decide(snapshot(rule(), asking), ada(ADMIN), "model:view", MODEL)
    assert not decision.allowed
    assert decision.rules == ("asking",)
    assert "asks for risk, which is not stated" in decision.reason


def test_an_error_is_not_hidden_by_a_condition_that_fails_before_it() -> None:
    conditions = [
        {"attribute": "department", "operator": "eq", "value": "finance"},
        {"attribute": "risk", "operator": "eq", "value": "high"},
    ]
    asking = rule(id="asking", conditions=conditions)
    assert not decide(snapshot(rule(), asking), ada(ADMIN), "model:view", MODEL).allowed


@pytest.mark.parametrize(
    ("operator", "value", "actual"),
    [
        ("lte", 3, "three"),
        ("gte", 3, None),
        ("contains", "a", "abc"),
        ("eq", "a", ["a"]),
        ("is_true", None, "yes"),
    ],
)
def test_values_that_cannot_be_compared_deny(operator: str, value: Any, actual: Any) -> None:
    condition = {"attribute": "x", "operator": operator, "value": value}
    rules = snapshot(rule(), rule(id="asking", conditions=[condition]))
    resource = Resource("model", id="1", attributes={"x": actual})
    decision = decide(rules, ada(ADMIN), "model:view", resource)
    assert not decision.allowed
    assert "cannot compare x" in decision.reason


@pytest.mark.parametrize(
    ("operator", "value", "yes", "no"),
    [
        ("eq", "a", "a", "b"),
        ("ne", "a", "b", "a"),
        ("in", ["a", "b"], "a", "c"),
        ("not_in", ["a", "b"], "c", "a"),
        ("in_network", ["10.0.0.0/8"], "10.1.1.1", "192.0.2.1"),
        ("not_in_network", ["10.0.0.0/8"], "192.0.2.1", "10.1.1.1"),
        ("contains", "a", ["a", "b"], ["b"]),
        ("contains_any", ["a", "b"], ["b"], ["c"]),
        ("lte", 3, 3, 4),
        ("gte", 3, 3, 2),
        ("is_true", None, True, False),
        ("same_department", None, ["clinical"], ["finance"]),
        ("is_self", None, 1, 2),
    ],
)
def test_every_operator_tells_yes_from_no(operator: str, value: Any, yes: Any, no: Any) -> None:
    condition = {"attribute": "x", "operator": operator, "value": value}
    members = {"member_roles": ["lead"]}
    rules = snapshot(rule(principal=members, conditions=[condition]))
    lead = ada(ActorRole("lead", "clinical"))
    for actual, allowed in ((yes, True), (no, False), (None, operator in {"ne", "not_in"})):
        resource = Resource("model", id="1", attributes={"x": actual})
        assert decide(rules, lead, "model:view", resource).allowed is allowed


def test_a_condition_may_ask_for_the_context() -> None:
    condition = {"attribute": "context.classification", "operator": "eq", "value": "internal"}
    rules = snapshot(rule(conditions=[condition]))
    for context, allowed in (
        ({"classification": "internal"}, True),
        ({"classification": "x"}, False),
        ({}, False),
    ):
        assert decide(rules, ada(ADMIN), "model:view", MODEL, context).allowed is allowed


def test_a_department_role_counts_only_in_the_resources_department() -> None:
    rules = snapshot(rule(principal={"department_roles": ["lead"]}))
    assert decide(rules, ada(ActorRole("lead", "clinical")), "model:view", MODEL).allowed
    decision = decide(rules, ada(ActorRole("lead", "finance")), "model:view", MODEL)
    assert "it belongs to clinical. No rule permits it" in decision.reason
    assert not decide(
        rules, ada(ActorRole("lead", "clinical")), "model:view", Resource("model", id="2")
    ).allowed


def test_a_role_held_elsewhere_does_not_lend_its_department_to_a_condition() -> None:
    condition = {"attribute": "departments", "operator": "same_department"}
    rules = snapshot(rule(principal={"member_roles": ["lead"]}, conditions=[condition]))
    both = ada(ActorRole("lead", "clinical"), ActorRole("viewer", "finance"))
    resource = Resource("model", id="1", attributes={"departments": ["finance"]})
    assert not decide(rules, both, "model:view", resource).allowed


def test_a_rule_may_count_roles_in_some_departments_only() -> None:
    condition = {"attribute": "departments", "operator": "same_department"}
    for way in ("member_roles", "department_roles"):
        who = {way: ["lead", "key"], "departments": ["clinical", "legal"]}
        rules = snapshot(rule(principal=who, conditions=[condition]))
        resource = Resource(
            "model",
            id="1",
            department="clinical",
            attributes={"departments": ["clinical", "finance"]},
        )
        assert decide(rules, ada(ActorRole("lead", "clinical")), "model:view", resource).allowed
        assert decide(rules, key("clinical"), "model:view", resource).allowed is False  # No scope.
        assert decide(rules, key("clinical", "model:view"), "model:view", resource).allowed
        for elsewhere in (ActorRole("lead", "finance"), ActorRole("viewer", "clinical")):
            assert not decide(rules, ada(elsewhere), "model:view", resource).allowed


def test_actors_who_hold_the_same_are_told_apart_by_who_they_are() -> None:
    mine = [{"attribute": "owner", "operator": "is_self"}]
    own = snapshot(rule(principal={"kinds": ["person"]}, conditions=mine))
    some = snapshot(rule(principal={"kinds": ["service"], "services": ["scim"]}))
    resource = Resource("model", id="1", attributes={"owner": 1})
    for _ in range(2):  # The second time from what is kept of the first.
        assert decide(own, ada(), "model:view", resource).allowed
        assert not decide(own, replace(ada(), person_id=2), "model:view", resource).allowed
        assert decide(some, service_principal("scim"), "model:view", resource).allowed
        assert not decide(some, service_principal("sso"), "model:view", resource).allowed


def test_what_is_kept_of_actors_and_types_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_INDEXES_MAX", 2)
    monkeypatch.setattr(index, "_BINDINGS_MAX", 2)
    rules = snapshot(rule(principal={"member_roles": ["lead"]}))
    for number in range(5):
        lead = ada(ActorRole("lead", f"department-{number}"))
        assert decide(rules, lead, "model:view", MODEL).allowed
        assert not decide(rules, lead, f"model:{number}", Resource(f"type-{number}")).allowed
    assert len(rules._indexes) <= 2
    assert len(rules.index("model:view", "model")._bindings) <= 2


def test_scopes_narrow_and_never_widen() -> None:
    rules = snapshot(rule(actions=["model:view", "model:create"]))
    narrowed = ada(ADMIN, scopes=frozenset({"model:view"}))
    assert decide(rules, narrowed, "model:view", MODEL).allowed
    decision = decide(rules, narrowed, "model:create", MODEL)
    assert decision.reason.endswith("its token is limited to model:view (policy 1).")
    nobody = ada(scopes=frozenset({"model:create"}))
    assert not decide(rules, nobody, "model:create", MODEL).allowed


def test_a_scope_on_a_resource_includes_viewing_it() -> None:
    assert scope_allows(frozenset({"deployment:invoke"}), "deployment:view")
    assert not scope_allows(frozenset({"deployment:view"}), "deployment:invoke")
    assert not scope_allows(frozenset({"deployment:invoke"}), "model:view")
    assert not scope_allows(frozenset(), "model:view")
    assert scope_allows(None, "model:view")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"actions": ["model:fly"]}, "0.actions.0"),
        ({"actions": []}, "0.actions"),
        ({"effect": "maybe"}, "0.effect"),
        ({"color": "red"}, "0.color"),
        ({"principal": {}}, "0.principal"),
        ({"principal": {"roles": ["admin"], "member_roles": ["lead"]}}, "0.principal"),
        ({"principal": {"roles": ["emperor"]}}, "0.principal.roles.0"),
        ({"conditions": [{"attribute": "x", "operator": "in", "value": "a"}]}, "0.conditions.0"),
        ({"conditions": [{"attribute": "x", "operator": "like"}]}, "0.conditions.0.operator"),
    ],
)
def test_a_rule_that_is_not_valid_is_refused_with_the_place(
    change: dict[str, Any], where: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        PolicySnapshot.from_rules(1, [rule(**change)])
    assert where in caught.value.fields


def test_two_rules_never_share_an_id() -> None:
    with pytest.raises(InvalidInput, match="some-rule"):
        snapshot(rule(), rule())


def test_a_refused_department_reads_why(default: PolicySnapshot) -> None:
    finance = key("finance", "deployment:invoke")
    decision = decide(default, finance, "deployment:invoke", DEPLOYMENT)
    assert decision.reason == (
        "Department finance may not use deployment docstring-writer: its release names "
        "engineering. No rule permits it (policy 1)."
    )
    assert may_know_of(default, finance, "deployment:invoke", DEPLOYMENT)
    assert decide(default, finance, "deployment:view", DEPLOYMENT).allowed


def test_a_named_departments_key_uses_the_deployment(default: PolicySnapshot) -> None:
    engineering = key("engineering", "deployment:invoke")
    assert decide(default, engineering, "deployment:invoke", DEPLOYMENT).allowed
    unscoped = key("engineering", "usage:view")
    assert not decide(default, unscoped, "deployment:invoke", DEPLOYMENT).allowed


def test_another_departments_hidden_deployment_is_not_known(default: PolicySnapshot) -> None:
    hidden = Resource(
        "deployment",
        id="2",
        department="clinical",
        attributes={"departments": ["clinical"], "visibility": "department"},
    )
    assert not may_know_of(
        default, key("finance", "deployment:invoke"), "deployment:invoke", hidden
    )


def test_a_key_knows_of_its_own_department_and_of_no_other(default: PolicySnapshot) -> None:
    finance = key("finance", "file:create")
    assert may_know_of(default, finance, "file:create", Resource("file", department="finance"))
    assert not may_know_of(default, finance, "file:create", Resource("file", department="clinical"))


def test_an_auditor_views_everything_and_changes_nothing(default: PolicySnapshot) -> None:
    auditor = ada(ActorRole("auditor"), ActorRole("lead", "clinical"))
    assert decide(default, auditor, "audit:view", Resource("audit")).allowed
    assert decide(default, auditor, "audit:export", Resource("audit")).allowed
    decision = decide(default, auditor, "model:create", MODEL)
    assert decision.rules == ("auditors-change-nothing",)


def test_only_security_reviewers_sign_off_intake(default: PolicySnapshot) -> None:
    resource = Resource("intake", id="1", department="clinical")
    for specialty, allowed in (("security", True), ("compliance", False)):
        reviewer = ada(ActorRole("reviewer", None, specialty))
        assert decide(default, reviewer, "intake:sign_off", resource).allowed is allowed


def test_who_is_not_signed_in_may_do_nothing(default: PolicySnapshot) -> None:
    from governance.permissions import Action

    for action in Action:
        resource = Resource(
            action.partition(":")[0],
            department="clinical",
            attributes={
                "shared": True,
                "departments": ["clinical"],
                "visibility": "organization",
                "owner": None,
            },
        )
        assert not decide(default, ANONYMOUS, action, resource).allowed


def test_every_action_is_granted_to_somebody_by_the_default_policy(
    default: PolicySnapshot,
) -> None:
    from governance.permissions import Action

    assert set(default.by_action) == {action.value for action in Action}
    assert [a.value for a in Action] == sorted(a.value for a in Action)


def test_the_engine_loads_without_django() -> None:
    code = (
        "import sys; import governance.policy.trace, governance.permissions, "
        "governance.keys.tokens; sys.exit('django' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
