"""Kept proofs of keys and decisions: they last one snapshot, and skip no check."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from django.conf import settings

from assay.gateway.access import snapshot as snapshots
from assay.gateway.access.authentication import KeyRefused, authenticate
from assay.gateway.access.decisions import (
    Circumstances,
    InvocationDenied,
    NotConfirmed,
    find_deployment,
    known_task,
)
from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.access.snapshot import Snapshot
from governance.keys.tokens import ParsedToken, secret_hmac
from governance.policy.engine import PolicySnapshot, Resource
from governance.principals import Principal, PrincipalKind

HERE = "192.0.2.1"
SECRET = "a" * 43
TOKEN = ParsedToken("first", SECRET)
PERMIT = {
    "id": "uses",
    "effect": "permit",
    "description": "keys use deployments",
    "principal": {"member_roles": ["key"]},
    "actions": ["deployment:invoke", "deployment:view"],
    "conditions": [{"attribute": "departments", "operator": "same_department"}],
}
CAUTION = {
    "id": "caution",
    "effect": "forbid",
    "description": "confidential data stays out",
    "principal": {"member_roles": ["key"]},
    "actions": ["deployment:invoke"],
    "conditions": [
        {"attribute": "context.classification", "operator": "eq", "value": "confidential"}
    ],
}


def key(public_id: str = "first", secret: str = SECRET, **changes: Any) -> KeyEntry:
    entry = KeyEntry(
        public_id=public_id,
        secret_hmac=secret_hmac(secret, settings.KEY_PEPPERS[1]),
        pepper_version=1,
        name=public_id,
        department="clinical",
        expires_at=time.time() + 60,
        revoked_at=None,
        principal=Principal(
            PrincipalKind.KEY, "1", public_id, "clinical", scopes=frozenset({"deployment:invoke"})
        ),
        limits=(),
    )
    return replace(entry, **changes)


def deployment(**changes: Any) -> DeploymentEntry:
    attributes = {
        "departments": ["clinical"],
        "visibility": "department",
        "environment": "production",
        "modality": "text",
    }
    entry = DeploymentEntry(
        id=1,
        name="writer",
        department="clinical",
        release=1,
        digest="0" * 64,
        task="text-generation",
        expires_at=time.time() + 60,
        created_at=0.0,
        ready_until=time.time() + 60,
        leased_until=time.monotonic() + 60,
        obstacle="",
        resource=Resource("deployment", "1", "writer", "clinical", attributes),
    )
    return replace(entry, **changes)


def snapshot(
    *keys: KeyEntry, entry: DeploymentEntry | None = None, rules: tuple[Any, ...] = (PERMIT,)
) -> Snapshot:
    return Snapshot(
        keys={each.public_id: each for each in keys or (key(),)},
        deployments={"writer": entry or deployment()},
        policy=PolicySnapshot.from_rules(1, list(rules)),
        read_at=time.monotonic(),
    )


def find(now: Snapshot, said: str = "internal", tokens: int = 1) -> Any:
    return find_deployment(now, now.keys["first"], "writer", Circumstances(HERE, said, tokens))


def test_a_secret_that_was_proved_lets_no_other_secret_pass() -> None:
    now = snapshot()
    assert authenticate(now, TOKEN, HERE) is authenticate(now, TOKEN, HERE)
    for wrong in (SECRET[:-1] + "b", "b" * 43, ""):
        with pytest.raises(KeyRefused):
            authenticate(now, ParsedToken("first", wrong), HERE)
    assert authenticate(now, TOKEN, HERE) is now.keys["first"]


def test_keys_whose_secrets_begin_alike_do_not_stand_for_each_other() -> None:
    other = SECRET[:-1] + "b"
    now = snapshot(key(), key("second", other))
    authenticate(now, TOKEN, HERE)
    authenticate(now, ParsedToken("second", other), HERE)
    for swapped in (ParsedToken("first", other), ParsedToken("second", SECRET)):
        with pytest.raises(KeyRefused):
            authenticate(now, swapped, HERE)


@pytest.mark.parametrize(
    "changes",
    [
        {"revoked_at": 1.0},
        {"expires_at": 1.0},
        {"secret_hmac": bytes(32)},
        {"pepper_version": 99},
        {"networks": ("203.0.113.0/24",)},
        {"department": None},
        {"person": 1, "session": bytes(32)},
    ],
)
def test_a_proved_key_that_has_changed_is_refused_after_its_next_reading(
    changes: dict[str, Any],
) -> None:
    now = snapshot()
    authenticate(now, TOKEN, HERE)
    with pytest.raises(KeyRefused):
        authenticate(replace(now, keys={"first": key(**changes)}), TOKEN, HERE)


def test_a_proved_key_that_is_gone_or_has_expired_since_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = snapshot()
    authenticate(now, TOKEN, HERE)
    with pytest.raises(KeyRefused, match="Incorrect"):
        authenticate(replace(now, keys={}), TOKEN, HERE)
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(KeyRefused, match="is expired"):
        authenticate(now, TOKEN, HERE)


def test_a_decision_is_made_once_for_what_rules_read() -> None:
    now = snapshot(rules=(PERMIT, CAUTION))
    assert find(now, tokens=1)[1] is find(now, tokens=9)[1]
    with pytest.raises(InvocationDenied, match="confidential data stays out"):
        find(now, "confidential")
    assert find(now)[1].rules == ("uses",)


def test_a_changed_policy_decides_anew() -> None:
    now = snapshot()
    assert find(now, "confidential")[1].allowed
    with pytest.raises(InvocationDenied):
        find(replace(now, policy=PolicySnapshot.from_rules(2, [PERMIT, CAUTION])), "confidential")


def test_a_key_that_has_moved_to_another_department_is_decided_anew() -> None:
    now = snapshot()
    find(now)
    moved = replace(key().principal, department="legal")
    changed = replace(now, keys={"first": key(department="legal", principal=moved)})
    with pytest.raises(Exception, match="does not exist"):
        find(changed)


def test_a_key_of_the_snapshot_before_leaves_no_decision_behind() -> None:
    old = key()
    moved = replace(old.principal, department="legal")
    now = snapshot(key(department="legal", principal=moved))
    assert known_task(now, old, "writer", Circumstances(HERE)) == "text-generation"
    with pytest.raises(Exception, match="does not exist"):
        find(now)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"only": frozenset({"legal"})}, "release_condition"),
        ({"obstacle": "Its release is withdrawn."}, "release_not_servable"),
    ],
)
def test_a_release_that_has_changed_refuses_whatever_was_decided(
    changes: dict[str, Any], code: str
) -> None:
    now = snapshot()
    find(now)
    with pytest.raises(InvocationDenied) as refused:
        find(replace(now, deployments={"writer": deployment(**changes)}))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("clock", "refusal"), [("time", "is expired"), ("monotonic", "was not confirmed")]
)
def test_the_end_of_a_release_and_of_a_lease_hold_between_snapshots(
    clock: str, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = snapshot()
    assert find(now)[1].allowed
    later = getattr(time, clock)() + 61
    monkeypatch.setattr(time, clock, lambda: later)
    with pytest.raises((InvocationDenied, NotConfirmed), match=refusal):
        find(now)


def test_a_snapshot_remembers_a_bounded_number_of_decisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots, "DECISIONS_MAX", 2)
    now = snapshot(rules=(PERMIT, CAUTION))
    for said in ("public", "internal", "restricted", "public"):
        assert find(now, said)[1].allowed
        assert len(now.decisions) <= 2
