"""Joining with a one-time token, and signing in with the node's key."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.authentication import MAX_TOKEN_CHARACTERS, bearer_token
from assay.api.documentation import operation
from assay.api.fields import Line, StrictSerializer
from assay.node_api.endpoint import NodeEndpoint
from assay.node_api.facts import FactsBody
from governance.people.attempts import forget_node_failure, refuse_nodes_when_locked
from governance.principals import request_context
from workers.nodes.broker_access import broker_user
from workers.nodes.credentials import CHALLENGE_MAX, CHALLENGE_S, challenge_make
from workers.nodes.models import NODE_NAME_MAX
from workers.nodes.services import node_join
from workers.nodes.sessions import SESSION, session_start
from workers.wire_keys import WireKey

TAG = "Nodes' own API"
_HEXADECIMAL_KEY = 64
_HEXADECIMAL_SIGNATURE = 128


class JoinBody(StrictSerializer):
    """The token, the machine's new public key (Ed25519, hexadecimal), and what the machine has."""

    token = Line(max_length=MAX_TOKEN_CHARACTERS)
    public_key = Line(max_length=_HEXADECIMAL_KEY)
    facts = FactsBody(required=False)


class JoinAnswer(serializers.Serializer[Any]):
    """The name that the token was made for."""

    node = serializers.CharField(source="name")


class _Open(NodeEndpoint):
    """Callers prove who they are with what is in the body."""

    authentication_classes = ()
    permission_classes = (AllowAny,)


class NodeJoinView(_Open):
    """A machine becomes a node."""

    @operation(TAG, "Join with a one-time token", body=JoinBody, answer=JoinAnswer, status=201)
    def post(self, request: Request) -> Response:
        given = self.body(JoinBody)
        address = request_context.get().client_address
        refuse_nodes_when_locked(address)
        node = node_join(
            token=given["token"], public_key=given["public_key"], facts=given.get("facts")
        )
        forget_node_failure(address)
        return self.answer(node, JoinAnswer, status=201)


class ChallengeBody(StrictSerializer):
    """The node that wants to sign in."""

    node = Line(max_length=NODE_NAME_MAX)


class ChallengeAnswer(serializers.Serializer[Any]):
    """A text to sign, and for how many seconds it is valid."""

    challenge = serializers.CharField()
    expires_in_s = serializers.IntegerField()


class NodeChallengeView(_Open):
    """The first step of signing in."""

    @operation(TAG, "Request a challenge", body=ChallengeBody, answer=ChallengeAnswer)
    def post(self, request: Request) -> Response:
        given = self.body(ChallengeBody)
        made = {"challenge": challenge_make(given["node"]), "expires_in_s": CHALLENGE_S}
        return self.answer(made, ChallengeAnswer)


class NodeSessionBody(StrictSerializer):
    """The challenge, and the signature (hexadecimal) of `assay node session 1`, the node's name and
    the challenge, each but the last followed by a line feed."""

    node = Line(max_length=NODE_NAME_MAX)
    challenge = Line(max_length=CHALLENGE_MAX)
    signature = Line(max_length=_HEXADECIMAL_SIGNATURE)


class NodeSessionAnswer(serializers.Serializer[Any]):
    """The session's token, for how many seconds it is valid, and the node's user of the broker.

    `realm` names the node's keys there; `wire_key` authenticates its messages."""

    token = serializers.CharField()
    expires_in_s = serializers.IntegerField()
    broker_user = serializers.CharField()
    broker_password = serializers.CharField()
    realm = serializers.CharField()
    wire_key = serializers.CharField()


class NodeSessionView(_Open):
    """The second step. With the token of the present session, that session is renewed."""

    @operation(
        TAG,
        "Sign in with the node's key",
        body=NodeSessionBody,
        answer=NodeSessionAnswer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        given = self.body(NodeSessionBody)
        address = request_context.get().client_address
        refuse_nodes_when_locked(address)
        started = session_start(
            name=given["node"],
            challenge=given["challenge"],
            signature=given["signature"],
            current=bearer_token(request._request) or "",
        )
        forget_node_failure(address)
        realm = started.session.node.realm
        made = {
            "token": started.token,
            "expires_in_s": int(SESSION.total_seconds()),
            "broker_user": broker_user(realm),
            "broker_password": started.broker_password,
            "realm": realm,
            "wire_key": WireKey(settings.WIRE_KEY).node_secret(realm),
        }
        return self.answer(made, NodeSessionAnswer, status=201)


class NodeCurrentSessionView(NodeEndpoint):
    """The present session."""

    @operation(TAG, "Confirm that the session is valid", answer=None, status=204)
    def get(self, request: Request) -> Response:
        self.query()
        return Response(status=204)
