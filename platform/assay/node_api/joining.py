"""Enroll nodes with a one-time token, and sign them in with their key."""

from __future__ import annotations

from django.conf import settings

from assay.node_api.endpoint import NodeRoutes, OpenEndpoint
from governance.people.attempts import forget_node_failure, refuse_nodes_when_locked
from governance.principals import request_context
from workers.control.messages import (
    Challenge,
    ChallengeBody,
    JoinBody,
    Joined,
    NodeSessionAnswer,
    SessionBody,
    reported_facts,
)
from workers.nodes.broker_access import broker_user
from workers.nodes.credentials import CHALLENGE_S, challenge_make
from workers.nodes.services import node_join
from workers.nodes.sessions import SESSION, session_start
from workers.wire_keys import WireKey

routes = NodeRoutes()


@routes.post("join", "Join with a one-time token", status=201, view=OpenEndpoint)
def node_joins(body: JoinBody) -> Joined:
    address = request_context.get().client_address
    refuse_nodes_when_locked(address)
    node = node_join(token=body.token, public_key=body.public_key, facts=reported_facts(body.facts))
    forget_node_failure(address)
    return Joined(node=node.name)


@routes.post("challenge", "Request a challenge", view=OpenEndpoint)
def challenge(body: ChallengeBody) -> Challenge:
    return Challenge(challenge=challenge_make(body.node), expires_in_s=CHALLENGE_S)


@routes.post("session", "Sign in with the node's key", status=201, view=OpenEndpoint)
def session(body: SessionBody, token: str) -> NodeSessionAnswer:
    """Start a session, or renew the current one if its token is sent."""
    address = request_context.get().client_address
    refuse_nodes_when_locked(address)
    started = session_start(
        name=body.node, challenge=body.challenge, signature=body.signature, current=token
    )
    forget_node_failure(address)
    realm = started.session.node.realm
    return NodeSessionAnswer(
        token=started.token,
        expires_in_s=int(SESSION.total_seconds()),
        broker_user=broker_user(realm),
        broker_password=started.broker_password,
        realm=realm,
        wire_key=WireKey(settings.WIRE_KEY).node_secret(realm),
    )


@routes.get("session/current", "Confirm that the session is valid")
def current_session() -> None:
    """Return nothing: successful authentication is the answer."""
