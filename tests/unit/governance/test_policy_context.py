"""Rules about the moment and the place: what is known, what may be asked, what is refused."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governance.errors import InvalidInput, NotPermitted
from governance.permissions import Action
from governance.policy.cases import run_cases
from governance.policy.columns import COLUMNS
from governance.policy.context import base_context, probing_context, with_base
from governance.policy.document import document_from_yaml
from governance.policy.engine import PolicySnapshot, Resource, decide, visibility
from governance.policy.rules import CONTEXT_KINDS, Operator
from governance.policy.services import authorize
from governance.principals import (
    ActorRole,
    Principal,
    PrincipalKind,
    RequestContext,
    request_context,
)
from tests.unit.policy_support import install_rules

ROOT = Path(__file__).resolve().parents[3]
ADMIN = Principal(PrincipalKind.PERSON, "1", "Ada", roles=frozenset({ActorRole("admin")}))
MODEL = Resource("model", id="1", name="sentiment", department="clinical")


def rule(*conditions: tuple[str, str, Any], **changes: Any) -> dict[str, Any]:
    """Admins view models under these conditions."""
    return {
        "id": "some-rule",
        "effect": "permit",
        "description": "some words",
        "principal": {"roles": ["admin"]},
        "actions": ["model:view"],
        "conditions": [
            {"attribute": attribute, "operator": operator, "value": value}
            for attribute, operator, value in conditions
        ],
        **changes,
    }


def allowed(rules: list[dict[str, Any]], context: dict[str, Any]) -> bool:
    snapshot = PolicySnapshot.from_rules(1, rules)
    return decide(snapshot, ADMIN, "model:view", MODEL, context).allowed


def test_the_moment_is_told_in_utc_and_monday_is_the_first_day() -> None:
    monday = calendar.timegm((2026, 11, 23, 9, 5, 59))
    assert base_context("10.0.0.1", now=monday) == {
        "time": "09:05",
        "weekday": 1,
        "client_address": "10.0.0.1",
    }
    assert base_context("", now=monday + 6 * 86400)["weekday"] == 7


def test_an_address_that_is_not_known_is_not_stated() -> None:
    assert "client_address" not in base_context()
    assert "client_address" not in base_context("")
    token = request_context.set(RequestContext(client_address="192.0.2.7"))
    try:
        assert base_context()["client_address"] == "192.0.2.7"
        # A caller on a socket without addresses does not get the address of the request's client.
        assert "client_address" not in base_context("")
    finally:
        request_context.reset(token)


def test_what_a_caller_states_wins_over_what_is_known() -> None:
    assert with_base({"time": "03:00"})["time"] == "03:00"
    assert set(with_base(None)) == {"time", "weekday"}


def test_asking_beforehand_states_everything_that_a_rule_may_ask_but_the_deployments_own() -> None:
    stated = {*probing_context(), "client_address"}
    assert stated == set(CONTEXT_KINDS) - {"environment", "modality"}


@pytest.mark.parametrize(
    ("moment", "open_"),
    [("07:59", False), ("08:00", True), ("12:30", True), ("17:59", True), ("18:00", False)],
)
def test_a_window_of_time_is_two_bounds(moment: str, open_: bool) -> None:
    window = [rule(("context.time", "gte", "08:00"), ("context.time", "lte", "17:59"))]
    assert allowed(window, {"time": moment}) is open_


@pytest.mark.parametrize("moment", ["8:00", "24:00", "08:00:00", "٠٨:٠٠", "", 800, None, True])
def test_what_is_no_time_of_day_denies(moment: Any) -> None:
    assert not allowed([rule(("context.time", "gte", "00:00"))], {"time": moment})


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("::ffff:10.1.2.3", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8:0:0::1", True),
        ("2001:db9::1", False),
        ("::1", False),
    ],
)
def test_an_address_is_inside_a_network_or_outside_all(address: str, inside: bool) -> None:
    networks = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]
    context = {"client_address": address}
    assert allowed([rule(("context.client_address", "in_network", networks))], context) is inside
    outside = [rule(("context.client_address", "not_in_network", networks))]
    assert allowed(outside, context) is not inside


@pytest.mark.parametrize(
    "address",
    ["", "10.0.0", "010.0.0.1", "10.0.0.1/8", "fe80::1%eth0", "10.0.0.1\x00", "localhost", 1, None],
)
@pytest.mark.parametrize("operator", ["in_network", "not_in_network"])
def test_what_is_no_address_denies_inside_and_outside(address: Any, operator: str) -> None:
    everywhere = ["0.0.0.0/0", "::/0"]
    rules = [rule(("context.client_address", operator, everywhere))]
    assert not allowed(rules, {"client_address": address})
    assert not allowed(rules, {})


def test_a_forbid_outside_the_network_holds_everybody_out_who_has_no_address() -> None:
    outside = rule(
        ("context.client_address", "not_in_network", ["10.0.0.0/8"]), id="office", effect="forbid"
    )
    assert allowed([rule(), outside], {"client_address": "10.0.0.1"})
    assert not allowed([rule(), outside], {"client_address": "192.0.2.1"})
    assert not allowed([rule(), outside], {})


def test_two_conditions_on_one_attribute_must_both_hold() -> None:
    both = [
        rule(
            ("context.client_address", "in_network", ["10.0.0.0/8"]),
            ("context.client_address", "in_network", ["10.1.0.0/16", "10.2.0.0/16"]),
            ("context.classification", "in", ["public", "internal"]),
            ("context.classification", "in", ["internal", "restricted"]),
            ("context.tokens", "gte", 10),
            ("context.tokens", "gte", 100),
            ("context.tokens", "lte", 1000),
        )
    ]
    good = {"client_address": "10.2.0.1", "classification": "internal", "tokens": 100}
    assert allowed(both, good)
    assert not allowed(both, {**good, "client_address": "10.3.0.1"})
    assert not allowed(both, {**good, "classification": "public"})
    assert not allowed(both, {**good, "tokens": 99})
    assert not allowed(both, {**good, "tokens": 1001})


@pytest.mark.parametrize("tokens", [True, 1.0, "1", 2**63, float("nan"), [1], None])
def test_no_kind_is_taken_for_another(tokens: Any) -> None:
    for operator in ("lte", "eq", "ne"):
        if tokens is None and operator == "ne":
            continue
        assert not allowed([rule(("context.tokens", operator, 1))], {"tokens": tokens})


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        (("context.color", "eq", "red"), "The context has no color"),
        (("context.time", "gte", 540), "put it in quotes"),
        (("context.time", "gte", "9:00"), "a time such as"),
        (("context.time", "gte", "25:00"), "a time such as"),
        (("context.tokens", "lte", "many"), "a whole number or a time"),
        (("context.tokens", "lte", "09:30"), "context.tokens is a whole number"),
        (("context.tokens", "lte", 1.5), "a whole number, true or false"),
        (("context.tokens", "lte", 2**63), "a whole number, true or false"),
        (("context.weekday", "eq", 0), "context.weekday is never 0"),
        (("context.classification", "in", ["secret"]), "is never secret"),
        (("context.client_address", "in_network", ["10.0.0.1/8"]), "is not a network"),
        (("context.client_address", "in_network", ["office"]), "is not a network"),
        (("context.client_address", "in_network", []), "a list of 1 to 200"),
        (("context.client_address", "in_network", ["::ffff:10.0.0.0/104"]), "as an IPv4 network"),
        (("tier", "in", ["a", 1]), "values of one kind"),
        (("tier", "in", [True, 1]), "values of one kind"),
        (("tier", "eq", "a\x00b"), "no control characters"),
        (("tier", "eq", "x" * 201), "at most 200 characters"),
        (("Tier", "eq", "x"), "Must be an attribute such as environment"),
    ],
)
def test_a_condition_that_could_never_hold_is_refused_when_it_is_written(
    condition: tuple[str, str, Any], why: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        PolicySnapshot.from_rules(1, [rule(condition)])
    [[sentence]] = caught.value.fields.values()
    assert why in sentence


def test_a_list_decides_the_context_beforehand() -> None:
    conditions = (("context.tokens", "lte", 10), ("shared", "is_true", None))
    snapshot = PolicySnapshot.from_rules(1, [rule(*conditions)])
    [few] = visibility(snapshot, ADMIN, "model:view", {"tokens": 1}).permits
    [many] = visibility(snapshot, ADMIN, "model:view", {"tokens": 11}).permits
    [untold] = visibility(snapshot, ADMIN, "model:view").permits
    assert [condition.attribute for condition in few.conditions] == ["shared"]
    assert (few.lapsed, few.error) == (False, "")
    assert many.lapsed
    assert "context.tokens, which is not stated" in untold.error


def test_a_refusal_names_what_about_the_request_was_wrong() -> None:
    snapshot = PolicySnapshot.from_rules(1, [rule(("context.tokens", "lte", 10))])
    decision = decide(snapshot, ADMIN, "model:view", MODEL, {"tokens": 11})
    assert decision.reason == (
        "Ada may not view model sentiment: the request's tokens are 11. No rule permits it "
        "(policy 1)."
    )


def test_every_service_decides_by_the_moment_and_the_place(actor: Callable[..., Principal]) -> None:
    admin = actor("Ada", "admin")
    office = ("context.client_address", "in_network", ["10.0.0.0/8"])
    any_day = ("context.weekday", "lte", 7)
    install_rules([rule(office, any_day, actions=["audit:export"])])
    token = request_context.set(RequestContext(client_address="10.9.9.9"))
    try:
        authorize(actor=admin, action=Action.AUDIT_EXPORT, resource=Resource("audit"))
    finally:
        request_context.reset(token)
    token = request_context.set(RequestContext(client_address="192.0.2.7"))
    try:
        with pytest.raises(NotPermitted, match="client address is 192"):
            authorize(actor=admin, action=Action.AUDIT_EXPORT, resource=Resource("audit"))
    finally:
        request_context.reset(token)


def documented() -> str:
    pages = ("how-to/change-the-policy.md", "reference/policy-language.md")
    return "\n".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in pages)


def test_the_documented_policy_is_valid_and_passes_its_own_tests() -> None:
    text = documented()
    document = document_from_yaml(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    snapshot = PolicySnapshot.from_rules(1, document.rules)
    results = run_cases(snapshot, document.cases)
    assert len(results) == 2
    assert [result.reason for result in results if not result.passed] == []


def test_every_operator_context_and_attribute_is_documented() -> None:
    text = documented()
    attributes = {name for columns in COLUMNS.values() for name in columns}
    names = [*Operator, *(f"context.{name}" for name in CONTEXT_KINDS), *attributes]
    assert [name for name in names if f"`{name}`" not in text] == []
