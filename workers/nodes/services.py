"""Enrolling nodes, taking them out of use, and what their reports change."""

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
# Longer than a challenge is valid, so that none is answered twice.
SESSIONS_KEPT = timedelta(days=7)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_KEY = re.compile(r"[0-9a-f]{64}")


@transaction.atomic
def node_enroll(*, actor: Principal, name: str) -> tuple[Node, str, datetime]:
    """Invite a machine under a name, or a revoked node anew. Returns the token, which is shown this
    once, and when it expires.

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
            f"{name[:NODE_NAME_MAX]!r} is not a name for a node.",
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
    kept = NodeToken.objects.create(
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
            "token": kept.public_id,
            "expires_at": kept.expires_at.isoformat(timespec="seconds"),
        },
        decision=decision,
    )
    return node, token, kept.expires_at


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
    """Join a machine as the node that the token was made for; the token is used up.

    Raises:
        NotAuthenticated: the token is wrong, expired, revoked or used.
        InvalidInput: the public key is not valid.
        WrongState: another node has the key.
    """
    node, kept = _token_of(token)
    if not _KEY.fullmatch(public_key):
        raise InvalidInput(
            "The public key is not valid.",
            fields={"public_key": ["An Ed25519 key has 64 hexadecimal digits."]},
        )
    if Node.objects.filter(public_key=public_key).exists():
        raise WrongState(
            f"The key of this machine belongs to a node already; {node.name} did not join.",
            hint="Remove the key file, then join again: each node has a key of its own.",
            attempt=_attempt(node_subject(node.name)),
        )
    now = timezone.now()
    kept.used_at = now
    kept.save(update_fields=["used_at"])
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
        data={"token": kept.public_id, "public_key": public_key},
    )
    return node


def _token_of(text: str) -> tuple[Node, NodeToken]:
    """Return an open token and its node, both locked. Raises NotAuthenticated."""
    parsed = credential_parse(text)
    kept = node = None
    if parsed is not None:
        name = Node.objects.filter(tokens__public_id=parsed.public_id).values_list("name").first()
        # The node first, as enrolling and revoking do.
        node = None if name is None else node_lock(name[0])
        rows = NodeToken.objects.select_for_update(of=("self",)).select_related("node")
        kept = rows.filter(public_id=parsed.public_id, node=node).first()
    right = (
        parsed is not None
        and kept is not None
        and credential_matches(parsed.secret, kept.secret_hmac, kept.pepper_version)
    )
    subject = Subject("node", "", "unknown node") if kept is None else node_subject(kept.node.name)
    why = "is not valid"
    if right and kept is not None and node is not None:
        if kept.used_at is not None:
            why = "was used already"
        elif kept.revoked_at is not None:
            why = "was revoked"
        elif kept.expires_at <= timezone.now():
            why = "has expired"
        else:
            return node, kept
    raise NotAuthenticated(
        f"The enrollment token {why}; no node joined.",
        code="node_token_invalid",
        hint="An administrator makes a new one with `assay node enroll`.",
        attempt=_attempt(subject),
    )


def node_cordon(*, actor: Principal, name: str, reason: str = "") -> Node:
    """Give a node no new work; current work continues. Raises as `_moved`."""
    return _moved(actor, name, NodeState.CORDONED, Action.NODE_CORDON, reason)


def node_uncordon(*, actor: Principal, name: str, reason: str = "") -> Node:
    """Return a cordoned or draining node to use. Raises as `_moved`."""
    return _moved(actor, name, NodeState.ENROLLED, Action.NODE_UNCORDON, reason)


def node_drain(*, actor: Principal, name: str, reason: str = "") -> Node:
    """Give a node no new work; each deployment stays until another worker has it, and jobs run to
    their end. Raises as `_moved`.
    """
    return _moved(actor, name, NodeState.DRAINING, Action.NODE_DRAIN, reason)


def node_revoke(*, actor: Principal, name: str, reason: str = "") -> Node:
    """Make a node's key worthless from the commit on: its sessions end, its replicas are stopped,
    and the leases of its jobs run out. Raises as `_moved`.
    """
    with transaction.atomic():
        node = _moved(actor, name, NodeState.REVOKED, Action.NODE_REVOKE, reason)
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
            # Under another fence, so that no request that is on its way renews or delivers it.
            jobs.update(lease_until=now, fence=F("fence") + 1)
    return node


@transaction.atomic
def _moved(actor: Principal, name: str, to: NodeState, action: Action, reason: str) -> Node:
    """Move a node to a state.

    Raises:
        NotFound: the node does not exist, or the actor may not see it.
        NotPermitted: the policy denies it; revoking needs a fresh second factor, too.
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


def node_report(*, node: Node, facts: dict[str, Any] | None) -> None:
    """Record that a node is alive and, with `facts`, its devices and utilization."""
    now = timezone.now()
    if facts is None:
        Node.objects.filter(pk=node.pk, state__in=WORKING).update(seen_at=now)
        return
    if not Node.objects.filter(pk=node.pk, state__in=WORKING).update(seen_at=now, facts=facts):
        return
    used = _utilization(facts)
    NodeSample.objects.update_or_create(
        node=node, at=now.replace(second=0, microsecond=0), defaults=used
    )


def _utilization(facts: dict[str, Any]) -> dict[str, float | None]:
    devices = facts.get("devices") or []
    busy = [device["used"] for device in devices if device.get("used") is not None]
    total = sum(device["memory_bytes"] for device in devices)
    taken = sum(device["memory_used_bytes"] for device in devices)
    return {
        "cpu": _part(facts["cpu_used"], 1),
        "memory": _part(facts["memory_used_bytes"], facts["memory_bytes"]),
        "device": _part(sum(busy), len(busy)) if busy else None,
        "device_memory": _part(taken, total) if total else None,
    }


def _part(value: float, of: float) -> float:
    return min(1.0, max(0.0, value / of)) if of else 0.0


def node_records_expire() -> int:
    """Delete samples older than 24 h and sessions that ended long ago; a duty of the controller.
    Returns how many samples.
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
