"""Our decisions against Cedar's, on generated rules, actors, resources and contexts."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from typing import Any

import cedarpy
import pytest

from benchmarks import cedar
from governance.errors import InvalidInput
from governance.policy.engine import PolicySnapshot, Resource, decide
from governance.policy.rules import Operator
from governance.policy.trace import RuleVerdict, explain
from governance.principals import ActorRole, Principal, PrincipalKind

ACTIONS = ("deployment:invoke", "deployment:view", "model:view", "key:create")
TYPES = ("deployment", "model", "key")
SLUGS = ("clinical", "engineering", "finance", "legal")
NAMES = ("department", "departments", "visibility", "owner", "shared", "tier", "place", "score")
CONTEXT = ("classification", "client_address", "time", "tokens", "weekday", "lifetime_days")
TEXTS = (*SLUGS, "", "organization", "internal", "09:30", "17:59", "24:00", "9:30", "1", "true")
ADDRESSES = (
    "10.0.0.1",
    "10.255.255.255",
    "11.0.0.0",
    "192.0.2.7",
    "::1",
    "2001:db8::7",
    "::ffff:10.0.0.1",
    "010.0.0.1",
    "10.0.0.1/8",
    "fe80::1%eth0",
    "nowhere",
)
NETWORKS = ("10.0.0.0/8", "10.0.0.1", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "::/0")
NUMBERS = (0, 1, 2, -1, 512, 2**62, 2**63 - 1, -(2**63))
ODD = (math.nan, math.inf, 1.0, 0.5, 2**63, -(2**63) - 1, 10**40, {"a": 1}, b"x", object())
WITHOUT = {"is_true", "is_self", "same_department"}
# Operators that fit each attribute. Most rules use them; otherwise every case would be an error.
FITTING = {
    "department": ("eq", "ne", "in", "not_in", "same_department"),
    "departments": ("contains", "contains_any", "same_department"),
    "visibility": ("eq", "ne", "in", "not_in"),
    "owner": ("is_self", "eq", "ne"),
    "shared": ("is_true", "eq", "ne"),
    "tier": ("eq", "ne", "in", "not_in", "same_department"),
    "place": ("in_network", "not_in_network"),
    "score": ("lte", "gte", "eq", "in", "not_in"),
    "classification": ("eq", "ne", "in", "not_in"),
    "client_address": ("in_network", "not_in_network"),
    "time": ("lte", "gte"),
    "tokens": ("lte", "gte", "eq"),
    "weekday": ("lte", "gte", "in"),
    "lifetime_days": ("lte", "gte"),
}
FITTING_VALUES = {
    "shared": (True, False),
    "owner": (1, 2),
    "score": (1, 2, 3),
    "tokens": (1, 2, 3),
    "lifetime_days": (1, 2, 3),
    "weekday": (1, 4, 7),
    "time": ("09:30", "12:00", "17:59"),
    "classification": ("internal", "restricted", "public"),
    "visibility": ("organization", "internal"),
}


class Draw:
    """Random rules and inputs; the same seed draws the same."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def some(self, values: Any, most: int, least: int = 0) -> list[Any]:
        return self.random.sample(list(values), self.random.randint(least, most))

    def scalar(self) -> Any:
        return self.random.choice(
            (self.random.choice(TEXTS), self.random.choice(NUMBERS), self.random.random() < 0.5)
        )

    def value(self) -> Any:
        """Of any kind that an attribute may have, odd ones too."""
        chance = self.random.random()
        if chance < 0.45:
            return self.scalar()
        if chance < 0.55:
            return self.random.choice(ADDRESSES)
        if chance < 0.62:
            return None
        if chance < 0.70:
            return self.random.choice(ODD)
        items = [self.scalar() for _ in range(self.random.randint(0, 3))]
        if chance > 0.97:
            items.append(self.random.choice((None, math.nan, 2**70, [])))
        return self.random.choice((list, tuple))(items)

    def stated(self, names: tuple[str, ...], missing: float) -> dict[str, Any]:
        return {name: self.value() for name in names if self.random.random() > missing}

    def condition(self, again: str = "") -> dict[str, Any]:
        """On any attribute, or on one that has a condition already; mostly one that fits."""
        attribute = again or self.random.choice((*NAMES, *CONTEXT))
        fits = self.random.random() < 0.85
        operators = FITTING[attribute] if fits else [str(operator) for operator in Operator]
        operator = self.random.choice(operators)
        condition = {
            "attribute": f"context.{attribute}" if attribute in CONTEXT else attribute,
            "operator": operator,
        }
        values = FITTING_VALUES.get(attribute, SLUGS) if fits else (*TEXTS, *NUMBERS, True)
        if operator in WITHOUT:
            return condition
        if operator.endswith("in_network"):
            return {**condition, "value": self.some(NETWORKS, 3, 1)}
        if operator in {"in", "not_in", "contains_any"}:
            return {**condition, "value": self.some(values, 2, 1)}
        return {**condition, "value": self.random.choice(values)}

    def conditions(self) -> list[dict[str, Any]]:
        """None to three, some of them twice on one attribute."""
        found = [self.condition() for _ in range(self.random.choice((0, 1, 1, 1, 2)))]
        if found and self.random.random() < 0.3:
            found.append(self.condition(found[0]["attribute"].removeprefix("context.")))
        return found

    def matcher(self) -> dict[str, Any]:
        kinds = self.some(["person", "key", "service"], 2)
        chance = self.random.random()
        if chance < 0.25:
            matcher: dict[str, Any] = {"roles": self.some(["admin", "auditor", "reviewer"], 2, 1)}
            if "reviewer" in matcher["roles"] and self.random.random() < 0.5:
                matcher["specialties"] = self.some(["security", "privacy"], 2, 1)
        elif chance < 0.80:
            way = self.random.choice(("department_roles", "member_roles"))
            matcher = {way: self.some(["lead", "developer", "viewer", "key"], 3, 1)}
            if self.random.random() < 0.3:
                matcher["departments"] = self.some(SLUGS, 2, 1)
        elif chance < 0.85:
            return {"kinds": ["service"], "services": self.some(["controller", "scim"], 2, 1)}
        else:
            return {"kinds": kinds or ["person"]}
        return {**matcher, "kinds": kinds} if self.random.random() < 0.2 else matcher

    def rules(self) -> list[dict[str, Any]]:
        """Up to eight rules that are valid."""
        rules: list[dict[str, Any]] = []
        wanted = self.random.randint(1, 8)
        while len(rules) < wanted:
            rule = {
                "id": f"rule-{len(rules)}",
                "effect": self.random.choice(("permit", "permit", "forbid")),
                "description": "words",
                "principal": self.matcher(),
                "actions": self.some(ACTIONS, 4, 2),
                "resource_types": self.some(TYPES, 2) if self.random.random() < 0.3 else [],
                "conditions": self.conditions(),
            }
            try:
                PolicySnapshot.from_rules(1, [rule])
            except InvalidInput:
                continue
            rules.append(rule)
        return rules

    def actor(self) -> Principal:
        kind = self.random.choice((PrincipalKind.PERSON, *PrincipalKind))
        held = [
            ActorRole(role, slug)
            for role in ("lead", "developer", "viewer")
            for slug in SLUGS
            if self.random.random() < 0.25
        ]
        held += [ActorRole(role) for role in ("admin", "auditor") if self.random.random() < 0.3]
        held += [
            ActorRole("reviewer", None, name)
            for name in ("security", "privacy")
            if self.random.random() < 0.3
        ]
        human = kind is PrincipalKind.PERSON or self.random.random() < 0.2
        return Principal(
            kind=kind,
            id=self.random.choice(("controller", "scim", "7")),
            name="somebody",
            department=self.random.choice((None, *SLUGS)) if kind is PrincipalKind.KEY else None,
            roles=frozenset(held if kind is PrincipalKind.PERSON else held[:1]),
            person_id=self.random.choice((1, 2)) if human else None,
        )

    def resource(self) -> Resource:
        attributes = self.stated(NAMES[1:], missing=0.06)
        if self.random.random() < 0.8:
            attributes |= {
                "departments": self.some(SLUGS, 3),
                "owner": self.random.choice((1, 2, None)),
                "shared": self.random.random() < 0.5,
                "visibility": self.random.choice(("organization", "internal", None)),
                "tier": self.random.choice(SLUGS),
                "place": self.random.choice(ADDRESSES[:7]),
                "score": self.random.choice((1, 2, 3)),
            }
            for name in self.some(tuple(attributes), 1):
                attributes[name] = self.value()
        return Resource(
            self.random.choice(TYPES),
            department=self.random.choice((None, *SLUGS)),
            attributes=attributes,
        )

    def context(self) -> dict[str, Any]:
        if self.random.random() < 0.15:
            return self.stated(CONTEXT, missing=0.2)
        return {
            "classification": self.random.choice(("internal", "restricted")),
            "client_address": self.random.choice(ADDRESSES[:7]),
            "time": self.random.choice(("00:00", "09:30", "12:00", "17:59", "23:59")),
            "tokens": self.random.choice((1, 2, 3, 2**62)),
            "weekday": self.random.randint(1, 7),
            "lifetime_days": self.random.choice((1, 2, 3, -(2**63))),
        }


@dataclass
class Tally:
    cases: int = 0
    allowed: int = 0
    forbidden: int = 0
    erring: int = 0
    erring_forbids: int = 0


def _numbers(texts: list[str]) -> set[str]:
    return {f"rule-{n}" for text in texts for n in re.findall(r"policy(\d+)\b", text)[:1]}


def _compare(seed: int, requests: int, tally: Tally) -> None:
    """Draw one policy and many requests, and hold every answer against Cedar's."""
    draw = Draw(seed)
    snapshot = PolicySnapshot.from_rules(1, draw.rules())
    actors = [draw.actor() for _ in range(12)]
    resources = [draw.resource() for _ in range(40)]
    entities = [cedar.actor_entity(str(n), actor) for n, actor in enumerate(actors)]
    entities += [cedar.resource_entity(str(n), found) for n, found in enumerate(resources)]
    asked = []
    for _ in range(requests):
        who, what = draw.random.randrange(len(actors)), draw.random.randrange(len(resources))
        asked.append((who, draw.random.choice(ACTIONS), what, draw.context()))
    results = cedarpy.is_authorized_batch(
        [cedar.request(str(who), do, str(what), when) for who, do, what, when in asked],
        cedarpy.PolicySet.from_str(cedar.policies(snapshot.rules)),
        entities,
    )
    for number, ((who, action, what, context), theirs) in enumerate(
        zip(asked, results, strict=True)
    ):
        actor, resource = actors[who], resources[what]
        ours = decide(snapshot, actor, action, resource, context)
        case = (seed, number, ours, theirs.diagnostics.reasons, theirs.diagnostics.errors)
        assert ours.allowed == cedar.allowed_by(theirs), case
        reasons, errors = _numbers(theirs.diagnostics.reasons), _numbers(theirs.diagnostics.errors)
        if ours.allowed or (reasons and not theirs.allowed):
            # Both name the same rules as the reason.
            assert set(ours.rules) == reasons, case
        elif errors:
            assert set(ours.rules) <= errors, case
        if number % 8 == 0:
            traces = explain(snapshot, actor, action, resource, context)
            assert {t.rule for t in traces if t.verdict is RuleVerdict.ERRS} == errors, case
            assert reasons <= {t.rule for t in traces if t.verdict is RuleVerdict.HOLDS}, case
        tally.cases += 1
        tally.allowed += ours.allowed
        tally.forbidden += bool(reasons) and not theirs.allowed
        tally.erring += bool(errors)
        tally.erring_forbids += any(
            snapshot.rules[int(name.removeprefix("rule-"))].effect == "forbid" for name in errors
        )


def test_two_thousand_decisions_are_cedars() -> None:
    tally = Tally()
    for seed in range(40):
        _compare(seed, 50, tally)
    assert tally.cases == 2000


@pytest.mark.sweep
def test_twenty_thousand_decisions_are_cedars() -> None:
    tally = Tally()
    for seed in range(1000, 1080):
        _compare(seed, 250, tally)
    assert tally.cases == 20_000
    # Drawn so that every way to an answer is taken many times.
    assert min(tally.allowed, tally.forbidden, tally.erring, tally.erring_forbids) > 600, tally


def test_a_forbid_that_errs_denies_where_cedar_leaves_it_out() -> None:
    permit = {
        "id": "rule-0",
        "effect": "permit",
        "description": "admins view models",
        "principal": {"roles": ["admin"]},
        "actions": ["model:view"],
    }
    forbid = {
        **permit,
        "id": "rule-1",
        "effect": "forbid",
        "conditions": [{"attribute": "risk", "operator": "eq", "value": "high"}],
    }
    snapshot = PolicySnapshot.from_rules(1, [permit, forbid])
    admin = Principal(PrincipalKind.PERSON, "1", "Ada", roles=frozenset({ActorRole("admin")}))
    model = Resource("model", id="1", department="clinical")
    theirs = cedarpy.is_authorized(
        cedar.request("a", "model:view", "m", {}),
        cedar.policies(snapshot.rules),
        [cedar.actor_entity("a", admin), cedar.resource_entity("m", model)],
    )
    assert theirs.allowed
    assert _numbers(theirs.diagnostics.errors) == {"rule-1"}
    ours = decide(snapshot, admin, "model:view", model)
    assert not ours.allowed
    assert ours.rules == ("rule-1",)
    assert not cedar.allowed_by(theirs)
