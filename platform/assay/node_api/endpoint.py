"""Common part of every endpoint below `/node/v1/`: only sessions of nodes open it.

An operation whose messages are JSON is a function. It gets what it names: the node, or the claim of
a job that a worker of the node holds; the bearer's token; the parameters of the path; and `body`
and `query`, read as the models that they are annotated with. What it returns is written as its
model. Operations that carry files are an `Endpoint` each (`files`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints
from uuid import UUID

from django.db import connection
from django.http import HttpResponse
from django.urls import URLPattern, path
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiParameter
from pydantic import BaseModel
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import AllowAny
from rest_framework.request import Request

from assay.api.authentication import Caller, bearer_token
from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from governance.errors import NotAuthenticated
from workers.control.jobs import Claim
from workers.control.messages import M, Nothing, read
from workers.nodes.job_side import node_job
from workers.nodes.models import Node
from workers.nodes.sessions import session_node
from workers.nodes.states import node_principal

F = TypeVar("F", bound=Callable[..., BaseModel | None])
TAG = "Nodes' own API"
# A job as long as a worker of the node holds it.
HELD = "jobs/<uuid:job_id>/attempts/<id:fence>"
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

    def sent(self, kind: type[M]) -> M:
        """Return the body. Raises InvalidInput and LengthRequired."""
        return read(kind, self.content())

    def asked(self, kind: type[M]) -> M:
        """Return the query. Raises InvalidInput."""
        return read(kind, self.parameters())

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


class OpenEndpoint(NodeEndpoint):
    """A view whose callers prove who they are with what is in the body."""

    authentication_classes = ()
    permission_classes = (AllowAny,)


class HeldEndpoint(NodeEndpoint):
    """A view of one job that a worker of the node holds."""

    def allow_body(self, job_id: UUID, fence: int, **kwargs: Any) -> None:
        self.claim(job_id, fence)

    def claim(self, job_id: UUID, fence: int) -> Claim:
        return node_job(node=self.node, job_id=job_id, fence=fence)


class NodeRoutes:
    """Operations that are functions, by path."""

    def __init__(self) -> None:
        self._views: dict[str, type[NodeEndpoint]] = {}

    @property
    def urls(self) -> list[URLPattern]:
        return [path(route, view.as_view()) for route, view in self._views.items()]

    def get(self, route: str, summary: str) -> Callable[[F], F]:
        """Add an operation that reads something."""
        return self._add("get", route, summary, 200, NodeEndpoint)

    def post(
        self,
        route: str,
        summary: str,
        *,
        status: int = 200,
        view: type[NodeEndpoint] = NodeEndpoint,
    ) -> Callable[[F], F]:
        """Add an operation that changes something; its status is 204 if it returns nothing."""
        return self._add("post", route, summary, status, view)

    def held(self, route: str, summary: str) -> Callable[[F], F]:
        """Add an operation that changes a job that a worker of the node holds."""
        return self._add("post", f"{HELD}/{route}", summary, 200, HeldEndpoint)

    def _add(
        self, method: str, route: str, summary: str, status: int, base: type[NodeEndpoint]
    ) -> Callable[[F], F]:
        def add(function: F) -> F:
            hints = get_type_hints(function)
            body, query = hints.get("body", Nothing), hints.get("query", Nothing)
            answer = None if hints["return"] is type(None) else hints["return"]
            takes = inspect.signature(function).parameters

            def handle(view: Any, request: Request, **values: Any) -> HttpResponse:
                if "claim" in takes:
                    values = {"claim": view.claim(values["job_id"], values["fence"])}
                elif "node" in takes:
                    values["node"] = view.node
                asked, sent = view.asked(query), view.sent(body) if method == "post" else None
                values |= {"query": asked} if "query" in takes else {}
                values |= {"body": sent} if "body" in takes else {}
                if "token" in takes:
                    values["token"] = bearer_token(request._request) or ""
                return answered(function(**values), status)

            name = "".join(word.title() for word in function.__name__.split("_"))
            handle.__qualname__ = f"Node{name}View.{method}"
            described = operation(
                TAG,
                summary,
                body=body if method == "post" else None,
                answer=answer,
                status=status if answer else 204,
                parameters=parameters_of(query),
            )
            made = self._views.setdefault(
                route, type(f"Node{name}View", (base,), {"__doc__": f"{summary}."})
            )
            setattr(made, method, described(handle))
            return function

        return add


def answered(message: BaseModel | None, status: int = 200) -> HttpResponse:
    """Return a message as a response; 204 without one."""
    if message is None:
        return HttpResponse(status=204)
    return HttpResponse(message.model_dump_json(), status=status, content_type="application/json")


def parameters_of(query: type[BaseModel]) -> list[OpenApiParameter]:
    """Return the description of a query."""
    return [
        OpenApiParameter(name, str, required=field.is_required())
        for name, field in query.model_fields.items()
    ]


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
