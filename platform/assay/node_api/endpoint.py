"""Common part of every endpoint below `/node/v1/`: only sessions of nodes open it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from assay.api.authentication import Caller, bearer_token
from assay.api.endpoint import Endpoint
from governance.errors import NotAuthenticated
from workers.nodes.models import Node
from workers.nodes.sessions import session_node
from workers.nodes.states import node_principal

# The node tries again.
LOCK_TIMEOUT_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCaller(Caller):
    """The node whose session the request belongs to."""

    node: Node


class NodeAuthentication(BaseAuthentication):
    """`Authorization: Bearer` with the token of a node's session."""

    def authenticate(self, request: Request) -> tuple[NodeCaller, None] | None:
        """Return the node whose session has the token. Raises NotAuthenticated."""
        token = bearer_token(request._request)
        if token is None:
            return None
        node = session_node(token)
        principal = node_principal(node.name)
        request._request.principal = principal  # type: ignore[attr-defined]
        return NodeCaller(principal, node=node), None

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="assay-node"'


class NodeEndpoint(Endpoint):
    """A view for nodes. Its services narrow what a node reaches by the name in its session."""

    authentication_classes: tuple[type[BaseAuthentication], ...] = (NodeAuthentication,)

    @property
    def node(self) -> Node:
        """The calling node."""
        if not isinstance(self.request.user, NodeCaller):
            raise NotAuthenticated("This needs the session of a node.")
        return self.request.user.node

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Wait only briefly for locks; nodes belong to no department.

        Rows of jobs and replicas are shared with workers of the control plane. While one of those
        holds them, many requests of nodes must not take all threads of the web process.
        """
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS:d}")
        yield
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")


class NodeSessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """`Authorization: Bearer`."""

    target_class = "assay.node_api.endpoint.NodeAuthentication"
    name = "node"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "assay_…",
            "description": "The token of a node's session (POST /node/v1/session).",
        }
