"""Every event in a person's words: each action that can occur has some; none shows a raw name."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.portal.facts import facts
from assay.portal.words import ATTEMPTS, PHRASES, described
from governance.audit.models import AuditEvent
from governance.permissions import Action
from governance.policy import proposals
from governance.reviews.models import ReviewState
from governance.reviews.waivers.models import WaiverState
from registry.batches import states as batch_states
from registry.incidents.models import IncidentState
from registry.releases.emergency_access.models import EmergencyAccessState
from registry.releases.models import ReleaseState
from workers.deployments import states as deployment_states
from workers.jobs import states as job_states

ROOT = Path(__file__).parents[3]
SOURCES = ("governance", "registry", "workers", "platform/assay")
# Functions whose text argument is the action of an event.
RECORDERS = frozenset(
    {
        "_note",
        "_record",
        "_record_mapping",
        "factor_record",
        "key_record",
        "record_event",
        "record_role",
    }
)
# Channels of Redis, and addresses of the portal.
NO_ACTIONS = ("assay:", "portal:", "vllm:")
ACTION = re.compile(r"[a-z_]+:[a-z_]+")
# Written as f-strings, from the states that a thing moves to, or from what was called.
MADE_UP = {
    *(f"batch:{verb}" for verb in batch_states._VERBS.values()),
    *(f"emergency_access:{state.value}" for state in EmergencyAccessState),
    *(f"incident:{state.value}" for state in IncidentState),
    *(f"deployment:{verb}" for verb in deployment_states._VERBS.values()),
    *(f"job:{verb}" for verb in job_states._VERBS.values()),
    *(
        f"{kind}:{verb}"
        for kind in ("policy", "review_policy")
        for verb in ("draft", "revise", *proposals._VERBS.values())
    ),
    *(f"release:{state.value}" for state in ReleaseState),
    # `review:open` is the earlier name of `review:reopened`, which old logs hold.
    *(f"review:{state.value}" for state in ReviewState),
    "review:reopened",
    *(f"waiver:{state.value}" for state in WaiverState if state != WaiverState.REQUESTED),
}
CALLED = {
    *(f"{surface}:{method}" for surface in ("api", "scim") for method in ("post", "put", "patch")),
    "api:delete",
    "portal:post",
    "scim:delete",
}


@functools.cache
def written() -> dict[str, str]:
    """Every action that stands in the code, and where."""
    return dict(_written())


def _written() -> Iterator[tuple[str, str]]:
    for root in SOURCES:
        for path in (ROOT / root).rglob("*.py"):
            # A stream's note about a missing event is not an event.
            if {"migrations", "streaming"} & set(path.parts):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for text in _actions(node):
                    if ACTION.fullmatch(text) and not text.startswith(NO_ACTIONS):
                        yield text, f"{path.relative_to(ROOT)}:{node.lineno}"  # type: ignore[attr-defined]


def _actions(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        given = [each.value for each in node.keywords if each.arg == "action"]
        if name in RECORDERS:
            given += node.args
        yield from (str(each.value) for each in given if isinstance(each, ast.Constant))
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
        if getattr(node.targets[0], "id", "") == "_ACTIONS":
            values = node.value.values
            yield from (str(each.value) for each in values if isinstance(each, ast.Constant))
        return
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
        yield str(node.value.value)


def occurring() -> dict[str, str]:
    """Every action that an event may have, and where it comes from."""
    known = {action.value: "governance/permissions.py" for action in Action}
    return {**written(), **dict.fromkeys(MADE_UP, "a state"), **known}


def test_the_walk_finds_what_is_known_to_be_there() -> None:
    found = written()
    for action in (
        "group:members",
        "key:rotate",
        "person:add_factor",
        "person:sign_in",
        "policy:activate",
        "quota:alert",
        "role:revoke",
    ):
        assert action in found
    assert len(found) > 40


def test_every_action_that_can_occur_is_said_in_words() -> None:
    allowed = {name: where for name, where in occurring().items() if name not in PHRASES}
    # Actions that only read are recorded only when they are refused.
    reads = {name for name in allowed if name.endswith((":view", ":explain"))}
    decides = {"policy:decide", "waiver:decide"}
    assert set(allowed) - reads - decides == set(), allowed
    tried = {**occurring(), **dict.fromkeys(CALLED, "an address")}
    assert {name: where for name, where in tried.items() if name not in ATTEMPTS} == {}


def test_words_are_kept_for_nothing_that_cannot_occur() -> None:
    assert {*PHRASES, *ATTEMPTS} - set(occurring()) - CALLED == set()


@pytest.mark.parametrize("outcome", ["allowed", "denied", "failed"])
@pytest.mark.parametrize(("name", "number"), [("Anna's", "7"), ("", "7"), ("7", "7"), ("", "")])
def test_no_sentence_shows_a_raw_name(outcome: str, name: str, number: str) -> None:
    for action in sorted({*PHRASES, *ATTEMPTS}):
        kind = action.partition(":")[0]
        event = AuditEvent(
            action=action,
            outcome=outcome,
            actor_kind="service",
            actor_id="controller",
            actor_name="controller",
            subject_type=kind,
            subject_id=number,
            subject_name=name,
        )
        said = described(event)
        assert said.who == "the controller"
        for raw in (action, "{}", "_", "  "):
            assert raw not in said.what, said.what
        assert not said.what.endswith(" "), said.what
        assert f"{kind.replace('_', ' ')} {kind.replace('_', ' ')}" not in said.what, said.what
        if name == "Anna's":
            assert said.what.count("Anna's") <= 1


def test_whoever_acts_is_called_by_what_they_are() -> None:
    def said(kind: str, identity: str, name: str) -> str:
        return described(
            AuditEvent(
                action="person:sign_in", outcome="denied", actor_kind=kind, actor_id=identity,
                actor_name=name, subject_type="person", subject_id="4",
            )
        ).who  # fmt: skip

    assert said("anonymous", "anonymous", "anonymous") == "an unknown visitor"
    assert said("service", "scim", "scim") == "the identity provider"
    assert said("person", "4", "erased person 4") == "erased person 4"
    assert said("person", "4", "") == "person 4"
    assert said("key", "4", "ci of clinical") == "ci of clinical"


def test_what_was_recorded_is_told_as_labels_and_values() -> None:
    told = facts(
        {
            "decision": {"rules": ["r"]},
            "before": {"name": "Old", "email": "same@x.example", "active": True},
            "after": {"name": "New", "email": "same@x.example", "active": False},
            "sessions_ended": 2,
            "scopes": ["deployment:invoke", "model:view"],
            "shared": False,
            "nothing": None,
            "metrics": {"macro_f1": 0.5},
            "long": "x" * 1000,
            "many": list(range(30)),
            "code": "policy_denied",
            "status": 403,
        }
    )
    assert told[:2] == [("Active", "yes → no"), ("Name", "Old → New")]
    assert ("Sessions ended", "2") in told
    assert ("Scopes", "deployment:invoke, model:view") in told
    assert ("Shared", "no") in told
    assert ("Metrics", "macro f1: 0.5") in told
    assert ("Response", "403 policy denied") in told
    assert dict(told)["Many"].endswith("19 and 10 more")
    assert len(dict(told)["Long"]) == 301
    assert {"Decision", "Nothing", "Email"} & set(dict(told)) == set()
    assert facts({"before": 5, "after": None}) == [("Changed", "5 → nothing")]
    assert facts({"before": 5, "after": 5}) == []
    assert len(facts({f"f{n}": n for n in range(1000)})) == 40
