"""Sign nodes in with their keys, and check their sessions.

All workers of a machine share one session, in a file next to its key. A sign-in with the key but
without that file ends the machine's session. So a copied key is noticed, and at most one of the two
machines works.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import NamedTuple

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Attempt, audit_record
from governance.errors import NotAuthenticated, QuotaExceeded
from governance.principals import ANONYMOUS, request_context
from workers.control.messages import signed_text
from workers.dispatch import wake_controller
from workers.nodes.credentials import (
    challenge_check,
    challenge_sha256,
    credential_matches,
    credential_mint,
    credential_parse,
    signature_valid,
)
from workers.nodes.models import Node, NodeSession, NodeState, SessionEnd
from workers.nodes.states import WORKING, node_principal, node_revoked, node_subject

SESSION = timedelta(minutes=15)
# Most sign-ins of one node in a minute.
SIGN_INS_MAX = 30
_PASSWORD_BYTES = 24
CONFLICT = "Another process signed in with this node's key."
_CONFLICT_HINT = (
    "Only one machine may have the key. Stop the other one; if you do not know it, revoke the node "
    "and enroll it again."
)


class Started(NamedTuple):
    """A new session, with secrets that are returned only once."""

    session: NodeSession
    token: str
    broker_password: str


def session_start(*, name: str, challenge: str, signature: str, current: str = "") -> Started:
    """Sign a node in by its signature of a challenge.

    The controller then sets the password on the broker (`broker_access`).

    `current` is the token of the session to renew. Without it, a session that is still valid ends,
    with an audit event and an alarm: another process has the key.

    Raises:
        NotAuthenticated: the node, the challenge or the signature is not valid.
        QuotaExceeded: the node signed in too often in the last minute.
    """
    challenge_check(challenge, name)
    with transaction.atomic():
        rows = Node.objects.select_for_update(of=("self",))
        node = rows.filter(name=name, state__in=WORKING).first()
        if node is None or not signature_valid(
            node.public_key, signature, signed_text(challenge, name)
        ):
            raise _refused(name, node)
        digest = challenge_sha256(challenge)
        if NodeSession.objects.filter(challenge_sha256=digest).exists():
            raise _refused(name, node)
        _check_rate(node)
        _end_previous(node, current)
        token, columns = credential_mint()
        password = secrets.token_hex(_PASSWORD_BYTES)
        session = NodeSession.objects.create(
            node=node,
            challenge_sha256=digest,
            broker_sha256=hashlib.sha256(password.encode()).hexdigest(),
            address=request_context.get().client_address[:64],
            expires_at=timezone.now() + SESSION,
            **columns,
        )
        transaction.on_commit(wake_controller)
    return Started(session, token, password)


def _check_rate(node: Node) -> None:
    """Raise QuotaExceeded after too many sign-ins: each may write two audit events."""
    since = timezone.now() - timedelta(minutes=1)
    if node.sessions.filter(started_at__gt=since).count() >= SIGN_INS_MAX:
        raise QuotaExceeded(
            f"Node {node.name} has signed in {SIGN_INS_MAX} times in a minute.",
            hint="The processes of a machine share one session; check that only one machine has "
            "the key.",
            retry_after=10,
        )


def _end_previous(node: Node, current: str) -> None:
    now = timezone.now()
    previous = NodeSession.objects.filter(node=node, ended_at=None).first()
    renewed = previous is not None and (_holds(previous, current) or _answer_lost(node, current))
    if previous is not None:
        replaced = not renewed and previous.expires_at > now
        previous.ended_at = now
        previous.ended_as = SessionEnd.REPLACED if replaced else SessionEnd.RENEWED
        previous.save(update_fields=["ended_at", "ended_as"])
        if replaced:
            node.conflict_at = now
            node.save(update_fields=["conflict_at"])
            audit_record(
                actor=node_principal(node.name),
                action="node:conflict",
                subject=node_subject(node.name),
                reason=CONFLICT,
                data={"session": previous.public_id, "address": previous.address},
            )
    if not renewed:
        audit_record(
            actor=node_principal(node.name),
            action="node:sign_in",
            subject=node_subject(node.name),
        )


def _answer_lost(node: Node, current: str) -> bool:
    """Return whether `current` was renewed but no later session was ever used: the machine did not
    get the answer, and renews with its old token.
    """
    parsed = credential_parse(current)
    if parsed is None:
        return False
    ended = node.sessions.filter(public_id=parsed.public_id, ended_as=SessionEnd.RENEWED).first()
    if ended is None or not _holds(ended, current):
        return False
    return not node.sessions.filter(pk__gt=ended.pk).exclude(used_at=None).exists()


def session_node(token: str) -> Node:
    """Return the node whose session has this token.

    Raises:
        NotAuthenticated: the session does not exist or has ended; code and message say how.
    """
    parsed = credential_parse(token)
    session = None
    if parsed is not None:
        rows = NodeSession.objects.select_related("node")
        session = rows.filter(public_id=parsed.public_id).first()
    if session is None or not _holds(session, token):
        raise NotAuthenticated(
            "This is not the token of a node's session.",
            code="node_session_invalid",
            hint="Sign in with POST /node/v1/challenge and POST /node/v1/session.",
        )
    node = session.node
    if node.state == NodeState.REVOKED or session.ended_as == SessionEnd.REVOKED:
        raise node_revoked(node)
    if session.ended_as == SessionEnd.REPLACED:
        raise NotAuthenticated(
            f"{CONFLICT} This session ended.",
            code="node_session_replaced",
            hint=_CONFLICT_HINT,
        )
    if session.ended_at is not None or session.expires_at <= timezone.now():
        raise NotAuthenticated(
            "The session of this node has ended.", code="node_session_ended", hint="Sign in again."
        )
    if session.used_at is None:
        NodeSession.objects.filter(pk=session.pk, used_at=None).update(used_at=timezone.now())
    return node


def _holds(session: NodeSession, token: str) -> bool:
    parsed = credential_parse(token)
    return (
        parsed is not None
        and parsed.public_id == session.public_id
        and credential_matches(parsed.secret, session.secret_hmac, session.pepper_version)
    )


def _refused(name: str, node: Node | None) -> NotAuthenticated:
    """Return the same error for every cause, so that callers cannot find out names."""
    subject = node_subject(name if node is not None else "")
    return NotAuthenticated(
        "The node did not sign in: its name, its key or its signature is wrong, or it is revoked.",
        code="node_signature_invalid",
        hint="Check ASSAY_NODE_KEY_FILE; an administrator sees the node's state on the Nodes page.",
        attempt=Attempt(actor=ANONYMOUS, action="node:sign_in", subject=subject),
    )
