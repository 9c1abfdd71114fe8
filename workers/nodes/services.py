"""Enroll nodes, take them out of use, and record their reports."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from governance.audit.services import Attempt, Subject, audit_record
from governance.errors import InvalidInput, NotAuthenticated, NotPermitted, WrongState
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize, authorize_binding
from governance.principals import ANONYMOUS, Principal
from governance.rowsecurity import lifted
from workers.control.messages import NODE_NAME_MAX
from workers.deployments.services import worker_replicas_end
from workers.dispatch import wake_engines
from workers.jobs.models import Job, JobState
from workers.nodes.credentials import credential_matches, credential_mint, credential_parse
from workers.nodes.models import (
    REASON_MAX,
    Node,
    NodeSample,
    NodeSession,
    NodeState,
    NodeToken,
    SessionEnd,
)
from workers.nodes.states import (
    NODE_STATES,
    WORKING,
    node_lock,
    node_principal,
    node_resource,
    node_subject,
)

TOKEN_LIFETIME = timedelta(hours=1)
SAMPLES_KEPT = timedelta(hours=24)
# Longer than the lifetime of a challenge, so that no challenge can be answered twice.
SESSIONS_KEPT = timedelta(days=7)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_KEY = re.compile(r"[0-9a-f]{64}")


@transaction.atomic
def node_enroll(*, actor: Principal, name: str) -> tuple[Node, str, datetime]:
    """Invite a machine under a name, or a revoked node again. Return the node, its token, which is
    shown only once, and the token's expiry.

    An earlier token of an invited node is revoked.

    Raises:
        InvalidInput: the name is not valid.
        NotPermitted: the policy denies it, or the actor has no recent second factor.
        WrongState: a node of this name is in use.
    """
    decision = authorize_binding(
        actor=actor,
        action=Action.NODE_ENROLL,
        resource=node_resource(name[:NODE_NAME_MAX]),
        doing="enrolling a node",
    )
    if not _NAME.fullmatch(name) or len(name) > NODE_NAME_MAX:
        raise InvalidInput(
            f"{name[:NODE_NAME_MAX]!r} is not a valid name for a node.",
            fields={
                "name": [
                    f"Use up to {NODE_NAME_MAX} lowercase letters, digits and hyphens; begin with "
                    "a letter or digit."
                ]
            },
        )
    person_id = _person(actor, name, decision)
    Node.objects.get_or_create(name=name, defaults={"created_by_id": person_id})
    node = node_lock(name)
    if node.state == NodeState.REVOKED:
        NODE_STATES.save_state(node, NodeState.INVITED, [])
    elif node.state != NodeState.INVITED:
        raise WrongState(
            f"Node {name} is {node.get_state_display().lower()}; it cannot be enrolled again.",
            hint="Revoke it first if its machine was replaced, or choose another name.",
        )
    now = timezone.now()
    _tokens_revoke(node)
    token, columns = credential_mint()
    row = NodeToken.objects.create(
        node=node,
        created_by_id=person_id,
        expires_at=now + TOKEN_LIFETIME,
        **columns,
    )
    audit_record(
        actor=actor,
        action=Action.NODE_ENROLL,
        subject=node_subject(name),
        data={
            "token": row.public_id,
            "expires_at": row.expires_at.isoformat(timespec="seconds"),
        },
        decision=decision,
    )
    return node, token, row.expires_at


def _person(actor: Principal, name: str, decision: Authorization) -> int:
    if actor.person_id is None:
        raise NotPermitted(
            f"{actor.name} is not a person; a node names who enrolled it.",
            hint="Sign in, or use a personal access token.",
            attempt=Attempt(
                actor=actor,
                action=Action.NODE_ENROLL,
                subject=node_subject(name),
                decision=decision,
            ),
        )
    return actor.person_id


@transaction.atomic
def node_join(*, token: str, public_key: str, facts: dict[str, Any] | None = None) -> Node:
    """Join a machine as the node of its token, and use up the token.

    Raises:
        NotAuthenticated: the token is wrong, expired, revoked or used.
        InvalidInput: the public key is not valid.
        WrongState: another node has the key.
    """
    node, row = _token_of(token)
    if not _KEY.fullmatch(public_key):
        raise InvalidInput(
            "The public key is not valid.",
            fields={"public_key": ["An Ed25519 key has 64 hexadecimal digits."]},
        )
    if Node.objects.filter(public_key=public_key).exists():
        raise WrongState(
            f"The key of this machine belongs to a node already; {node.name} did not join.",
            hint="Remove the key file, then join again: each node needs its own key.",
            attempt=_attempt(node_subject(node.name)),
        )
    now = timezone.now()
    row.used_at = now
    row.save(update_fields=["used_at"])
    node.public_key, node.joined_at, node.seen_at = public_key, now, now
    node.facts, node.conflict_at, node.broker_denials = facts or {}, None, {}
    NODE_STATES.move(
        node,
        NodeState.ENROLLED,
        actor=node_principal(node.name),
        action="node:join",
        subject=node_subject(node.name),
        fields=[
            *("public_key", "joined_at", "seen_at", "facts", "conflict_at", "broker_denials"),
        ],
        data={"token": row.public_id, "public_key": public_key},
    )
    return node


def _token_of(text: str) -> tuple[Node, NodeToken]:
    """Return an open token's node and row, both locked. Raises NotAuthenticated."""
    parsed = credential_parse(text)
    row = node = None
    if parsed is not None:
        name = Node.objects.filter(tokens__public_id=parsed.public_id).values_list("name").first()
        # Lock the node first, in the same order as enrolling and revoking.
        node = None if name is None else node_lock(name[0])
        rows = NodeToken.objects.select_for_update(of=("self",)).select_related("node")
        row = rows.filter(public_id=parsed.public_id, node=node).first()
    is_valid = (
        parsed is not None
        and row is not None
        and credential_matches(parsed.secret, row.secret_hmac, row.pepper_version)
    )
    subject = Subject("node", "", "unknown node") if row is None else node_subject(row.node.name)
    fault = "is not valid"
    if is_valid and row is not None and node is not None:
        if row.used_at is not None:
            fault = "was used already"
        elif row.revoked_at is not None:
            fault = "was revoked"
        elif row.expires_at <= timezone.now():
            fault = "has expired"
        else:
            return node, row
    raise NotAuthenticated(
        f"The enrollment token {fault}; no node joined.",
        code="node_token_invalid",
        hint="An administrator makes a new one with `assay node enroll`.",
        attempt=_attempt(subject),
    )


def node_cordon(*, actor: Principal, name: str, reason: str = "") -> Node:
    """Give a node no new work; current work continues. Raises the errors of `_move`."""
    return _move(actor, name, NodeState.CORDONED, Action.NODE_CORDON, reason)


def node_uncordon(*, actor: Principal, name: str, reason: str = "") -> Node:
    """Return a cordoned or draining node to use. Raises the errors of `_move`."""
    return _move(actor, name, NodeState.ENROLLED, Action.NODE_UNCORDON, reason)


def node_drain(*, actor: Principal, name: str, reason: str = "") -> Node:
    """Give a node no new work; deployments stay until another worker has loaded them, and jobs run
    to their end. Raises the errors of `_move`.
    """
    return _move(actor, name, NodeState.DRAINING, Action.NODE_DRAIN, reason)


def node_revoke(*, actor: Principal, name: str, reason: str = "") -> Node:
    """Invalidate a node's key from the commit on: its sessions end, its replicas are stopped, and
    the leases of its jobs run out. Raises the errors of `_move`.
    """
    with transaction.atomic():
        node = _move(actor, name, NodeState.REVOKED, Action.NODE_REVOKE, reason)
        now = timezone.now()
        _tokens_revoke(node)
        NodeSession.objects.filter(node=node, ended_at=None).update(
            ended_at=now, ended_as=SessionEnd.REVOKED
        )
        with lifted():
            worker_replicas_end(
                prefix=node.prefix, message=f"Node {node.name} was revoked.", actor=actor
            )
            jobs = Job.objects.filter(worker__startswith=node.prefix, state=JobState.RUNNING)
            # Another fence, so that requests already under way cannot renew or deliver the job.
            jobs.update(lease_until=now, fence=F("fence") + 1)
    return node


@transaction.atomic
def _move(actor: Principal, name: str, to: NodeState, action: Action, reason: str) -> Node:
    """Move a node to a state.

    Raises:
        NotFound: the node does not exist, or the actor may not see it.
        NotPermitted: the policy denies it, or a revocation lacks a recent second factor.
        WrongState: the transition is not allowed.
    """
    decision = _authorized(actor, name, action)
    node = node_lock(name)
    NODE_STATES.move(
        node,
        to,
        actor=actor,
        action=action,
        subject=node_subject(name),
        fields=[],
        reason="".join(each for each in reason if each.isprintable()).strip()[:REASON_MAX],
        decision=decision,
    )
    transaction.on_commit(wake_engines)
    return node


def _authorized(actor: Principal, name: str, action: Action) -> Authorization:
    resource = node_resource(name)
    if action is Action.NODE_REVOKE:
        return authorize_binding(
            actor=actor, action=action, resource=resource, doing=f"revoking node {name}"
        )
    return authorize(actor=actor, action=action, resource=resource)


@transaction.atomic
def node_report(*, node: Node, facts: dict[str, Any] | None) -> None:
    """Record a sign of life of a node and, with `facts`, its devices and utilization. While another
    request of the node holds its row, nothing is recorded: the next report follows in seconds."""
    now = timezone.now()
    rows = Node.objects.filter(pk=node.pk, state__in=WORKING)
    if not rows.select_for_update(skip_locked=True, no_key=True).exists():
        return
    if facts is None:
        rows.update(seen_at=now)
        return
    rows.update(seen_at=now, facts=facts)
    NodeSample.objects.update_or_create(
        node=node, at=now.replace(second=0, microsecond=0), defaults=_utilization(facts)
    )


def _utilization(facts: dict[str, Any]) -> dict[str, float | None]:
    devices = facts.get("devices") or []
    busy = [device["used"] for device in devices if device.get("used") is not None]
    total = sum(device["memory_bytes"] for device in devices)
    used = sum(device["memory_used_bytes"] for device in devices)
    return {
        "cpu": _fraction(facts["cpu_used"], 1),
        "memory": _fraction(facts["memory_used_bytes"], facts["memory_bytes"]),
        "device": _fraction(sum(busy), len(busy)) if busy else None,
        "device_memory": _fraction(used, total) if total else None,
    }


def _fraction(value: float, of: float) -> float:
    return min(1.0, max(0.0, value / of)) if of else 0.0


def node_records_expire() -> int:
    """Delete samples older than 24 h and sessions that expired more than `SESSIONS_KEPT` ago;
    return the number of samples.
    """
    now = timezone.now()
    gone, _ = NodeSample.objects.filter(at__lt=now - SAMPLES_KEPT).delete()
    NodeSession.objects.filter(expires_at__lt=now - SESSIONS_KEPT).delete()
    return gone


def _tokens_revoke(node: Node) -> None:
    NodeToken.objects.filter(node=node, used_at=None, revoked_at=None).update(
        revoked_at=timezone.now()
    )


def _attempt(subject: Subject) -> Attempt:
    return Attempt(actor=ANONYMOUS, action="node:join", subject=subject)
