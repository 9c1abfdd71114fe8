"""Policy decisions with 1,000 rules, against Cedar on the same rules and requests.

500 rules are about `deployment:invoke`, by department, environment, classification, network, hour
and tokens; 400 keys and 100 people request 120 deployments. Each decision has a random actor and
deployment, in rounds interleaved with Cedar's (cedarpy with a reused policy set and entities; both
must agree). Also measured: processor time; each decision as the best of three, which reduces the
effect of other load; the first decision under a new policy; and the first of each actor.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from statistics import quantiles
from typing import Any

import cedarpy

from benchmarks import cedar
from benchmarks.table import Row, show
from governance.policy.engine import PolicySnapshot, Resource, decide
from governance.principals import ActorRole, Principal, PrincipalKind

RULES, DEPARTMENTS = 1000, 100
KEYS, PEOPLE, DEPLOYMENTS = 400, 100, 120
DECISIONS, CEDAR_DECISIONS = 20_000, 200
_CLASSES = ("public", "internal", "confidential", "restricted")
_INVOKE = "deployment:invoke"


def _slug(number: int) -> str:
    return f"department-{number}"


def _where(attribute: str, operator: str, value: Any = None) -> dict[str, Any]:
    return {"attribute": attribute, "operator": operator, "value": value}


def build_rules(draw: random.Random) -> list[dict[str, Any]]:
    """Return a thousand rules, such as an organization of a hundred departments might have."""
    base = [
        ("named", "permit", {"member_roles": ["lead", "developer", "key"]}, [_INVOKE],
         [_where("departments", "same_department")]),
        ("audit", "forbid", {"roles": ["auditor"]}, [_INVOKE], []),
        ("restricted", "forbid", {"kinds": ["key", "person"]}, [_INVOKE],
         [_where("context.classification", "eq", "restricted"),
          _where("environment", "ne", "production")]),
    ]  # fmt: skip
    rules = [
        {"id": f"base-{name}", "effect": effect, "description": name, "principal": who,
         "actions": actions, "resource_types": ["deployment"], "conditions": conditions}
        for name, effect, who, actions, conditions in base
    ]  # fmt: skip
    for number in range(RULES - len(rules)):
        about_invoke = number % 2 == 0
        rules.append(_department_rule(draw, number, about_invoke))
    return rules


def _department_rule(draw: random.Random, number: int, about_invoke: bool) -> dict[str, Any]:
    """Return a rule for one department, or for all actors about one department's deployments."""
    slug = _slug(number % DEPARTMENTS)
    conditions = draw.sample(
        [
            _where("environment", "eq", draw.choice(["staging", "production"])),
            _where("context.tokens", "lte", draw.choice([512, 4096, 32_768])),
            _where("context.time", "gte", f"{draw.randrange(24):02d}:00"),
            _where("context.client_address", "in_network", [f"10.{draw.randrange(256)}.0.0/16"]),
            _where("context.classification", "in", list(_CLASSES[: draw.randint(1, 4)])),
            _where("name", "eq", f"deployment-{draw.randrange(DEPLOYMENTS)}"),
            _where("modality", "in", ["text", "image"]),
        ],
        draw.randint(1, 3),
    )
    if number % 3 == 0:
        who: dict[str, Any] = {"kinds": ["key", "person"]}
        conditions.append(_where("department", "eq", slug))
    else:
        who = {"member_roles": ["lead", "developer", "key"], "departments": [slug]}
    others = ["deployment:view", "model:view", "dataset:view", "job:create"]
    return {
        "id": f"rule-{number}",
        "effect": "forbid" if number % 10 == 9 else "permit",
        "description": f"rule {number}",
        "principal": who,
        "actions": [_INVOKE] if about_invoke else others,
        "resource_types": ["deployment"] if about_invoke else [],
        "conditions": conditions,
    }


def _actors(draw: random.Random) -> list[Principal]:
    keys = [
        Principal(PrincipalKind.KEY, str(n), f"key {n}", department=_slug(n % DEPARTMENTS),
                  scopes=frozenset({_INVOKE}), key_id=n)
        for n in range(KEYS)
    ]  # fmt: skip
    people = [
        Principal(
            PrincipalKind.PERSON, str(n), f"person {n}", person_id=n,
            roles=frozenset(
                ActorRole(draw.choice(["lead", "developer", "viewer"]), _slug(place))
                for place in draw.sample(range(DEPARTMENTS), draw.randint(1, 3))
            ),
        )
        for n in range(PEOPLE)
    ]  # fmt: skip
    return keys + people


def _deployments(draw: random.Random) -> list[Resource]:
    deployments = []
    for number in range(DEPLOYMENTS):
        owner = draw.randrange(DEPARTMENTS)
        departments = sorted(
            {_slug(owner), *(_slug(draw.randrange(DEPARTMENTS)) for _ in range(3))}
        )
        attributes = {
            "classification": draw.choice(_CLASSES),
            "departments": departments,
            "environment": draw.choice(["staging", "production"]),
            "modality": draw.choice(["text", "audio"]),
            "name": f"deployment-{number}",
            "task": "text-generation",
            "visibility": draw.choice(["department", "organization"]),
        }
        name = f"deployment-{number}"
        deployments.append(Resource("deployment", str(number), name, _slug(owner), attributes))
    return deployments


def _context(draw: random.Random) -> dict[str, Any]:
    return {
        "time": f"{draw.randrange(24):02d}:{draw.randrange(60):02d}",
        "weekday": draw.randint(1, 7),
        "client_address": f"10.{draw.randrange(256)}.3.{draw.randrange(256)}",
        "classification": draw.choice(_CLASSES[:2]),
        "environment": "production",
        "modality": "text",
        "tokens": draw.choice([100, 1000, 10_000]),
    }


def _measure(*, rounds: int) -> list[Row]:
    world = _World(random.Random(1))
    snapshot, draw = world.snapshot, world.draw
    decide(snapshot, world.actors[0], "model:view", Resource("model"))  # Imports and the like.
    firsts = [
        _time(snapshot, actor, draw.choice(world.resources), _context(draw))
        for actor in world.actors
    ]
    wall, processor, undisturbed, cedar_wall = (_Samples() for _ in range(4))
    for _ in range(rounds):
        for _ in range(DECISIONS):
            wall.add(_time(snapshot, *world.question()))
            processor.add(_time(snapshot, *world.question(), clock=time.thread_time_ns))
        for _ in range(DECISIONS // 4):
            question = world.question()
            undisturbed.add(min(_time(snapshot, *question) for _ in range(3)))
        for _ in range(CEDAR_DECISIONS):
            cedar_wall.add(world.time_cedar(*world.question()))
        for samples in (wall, processor, undisturbed, cedar_wall):
            samples.close()
    print(  # noqa: T201
        f"{RULES} rules, {len(snapshot.by_action[_INVOKE])} of them about {_INVOKE}; "
        f"{len(world.actors)} actors, {len(world.resources)} deployments; "
        f"{world.allowed / (rounds * CEDAR_DECISIONS):.0%} allowed"
    )
    return [
        Row.of("a decision, median", "µs", wall.medians, cedar_wall.medians),
        Row.of("a decision, 99%", "µs", wall.highs, cedar_wall.highs),
        Row.of("its processor time, median", "µs", processor.medians),
        Row.of("its processor time, 99%", "µs", processor.highs),
        Row.of("the best of three of each, 99%", "µs", undisturbed.highs),
        Row.of("an actor's first decision, median", "µs", firsts[1:]),
        Row.of("an actor's first decision, 99%", "µs", [quantiles(firsts[1:], n=100)[98]]),
        Row.of("the first under a new policy", "µs", firsts[:1]),
    ]


class _Samples:
    """The median and the 99th percentile of each round."""

    def __init__(self) -> None:
        self.medians: list[float] = []
        self.highs: list[float] = []
        self._round: list[float] = []

    def add(self, sample: float) -> None:
        self._round.append(sample)

    def close(self) -> None:
        """End a round."""
        cuts = quantiles(self._round, n=100)
        self.medians.append(cuts[49])
        self.highs.append(cuts[98])
        self._round = []


def _time(
    snapshot: PolicySnapshot,
    actor: Principal,
    resource: Resource,
    context: dict[str, Any],
    clock: Callable[[], int] = time.perf_counter_ns,
) -> float:
    """Return the duration of one decision, in µs."""
    started = clock()
    decide(snapshot, actor, _INVOKE, resource, context)
    return (clock() - started) / 1000


class _World:
    """One policy with actors and resources, for both engines."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.snapshot = PolicySnapshot.from_rules(1, build_rules(draw))
        self.actors = _actors(draw)
        self.resources = _deployments(draw)
        self.allowed = 0
        self._policies = cedarpy.PolicySet.from_str(cedar.policies(self.snapshot.rules))

    def question(self) -> tuple[Principal, Resource, dict[str, Any]]:
        """Draw a principal, a resource and a context."""
        draw = self.draw
        return draw.choice(self.actors), draw.choice(self.resources), _context(draw)

    def time_cedar(self, actor: Principal, resource: Resource, context: dict[str, Any]) -> float:
        """Return Cedar's duration, in µs; its decision must equal ours."""
        request = cedar.request("who", _INVOKE, "what", context)
        entities = cedarpy.Entities.from_json_str(
            json.dumps([cedar.actor_entity("who", actor), cedar.resource_entity("what", resource)])
        )
        started = time.perf_counter_ns()
        result = cedarpy.is_authorized(request, self._policies, entities)
        took = (time.perf_counter_ns() - started) / 1000
        ours = decide(self.snapshot, actor, _INVOKE, resource, context).allowed
        if ours != cedar.allowed_by(result):
            raise AssertionError("Cedar's decision differs; the durations are not comparable")
        self.allowed += ours
        return took


if __name__ == "__main__":
    show("Policy decisions", "Cedar", _measure(rounds=2 if "--quick" in sys.argv else 5))
