"""Base of all endpoints below `/node/v1/`, which need the session of a node.

Operations with JSON messages are functions. Their parameters are filled in by name: `node`, or
`claim` for a job that a worker of the node runs; `token`, the bearer's; the parameters of the path;
and `body` and `query`, parsed as their annotated models. The returned model is the response.
Operations with files are each an `Endpoint` (`files`).
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
# Path of a job while a worker of the node runs it.
ATTEMPT_PATH = "jobs/<uuid:job_id>/attempts/<id:fence>"
# Short, because the node retries.
LOCK_TIMEOUT_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCaller(Caller):
    """The node whose session the request belongs to."""

    node: Node


class NodeAuthentication(BaseAuthentication):
    """`Authorization: Bearer` with the token of a node's session."""

    def authenticate(self, request: Request) -> tuple[NodeCaller, None] | None:
        """Return the node of the token's session. Raises NotAuthenticated."""
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
    """A view for nodes. Services limit a node's access by the name in its session."""

    authentication_classes: tuple[type[BaseAuthentication], ...] = (NodeAuthentication,)

    @property
    def node(self) -> Node:
        """The calling node."""
        if not isinstance(self.request.user, NodeCaller):
            raise NotAuthenticated("This needs the session of a node.")
        return self.request.user.node

    def body_message(self, kind: type[M]) -> M:
        """Return the body. Raises InvalidInput and LengthRequired."""
        return read(kind, self.content())

    def query_message(self, kind: type[M]) -> M:
        """Return the query. Raises InvalidInput."""
        return read(kind, self.parameters())

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Shorten lock waits. Sets no row-security scope, since nodes have no department.

        Workers of the control plane also lock rows of jobs and replicas. While they do, requests of
        nodes must not occupy all threads of the web process.
        """
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS:d}")
        yield
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")


class OpenEndpoint(NodeEndpoint):
    """A view whose callers authenticate by the content of the body."""

    authentication_classes = ()
    permission_classes = (AllowAny,)


class JobEndpoint(NodeEndpoint):
    """A view of one job that a worker of the node runs."""

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

    def job(self, route: str, summary: str) -> Callable[[F], F]:
        """Add an operation that changes a job that a worker of the node runs."""
        return self._add("post", f"{ATTEMPT_PATH}/{route}", summary, 200, JobEndpoint)

    def _add(
        self, method: str, route: str, summary: str, status: int, base: type[NodeEndpoint]
    ) -> Callable[[F], F]:
        def add(function: F) -> F:
            hints = get_type_hints(function)
            body, query = hints.get("body", Nothing), hints.get("query", Nothing)
            answer = None if hints["return"] is type(None) else hints["return"]
            parameters = inspect.signature(function).parameters

            def handle(view: Any, request: Request, **values: Any) -> HttpResponse:
                if "claim" in parameters:
                    values = {"claim": view.claim(values["job_id"], values["fence"])}
                elif "node" in parameters:
                    values["node"] = view.node
                messages = {"query": view.query_message(query)}
                if method == "post":
                    messages["body"] = view.body_message(body)
                values |= {name: messages[name] for name in messages if name in parameters}
                if "token" in parameters:
                    values["token"] = bearer_token(request._request) or ""
                return answered(function(**values), status)

            name = "".join(word.title() for word in function.__name__.split("_"))
            handle.__qualname__ = f"Node{name}View.{method}"
            document = operation(
                TAG,
                summary,
                body=body if method == "post" else None,
                answer=answer,
                status=status if answer else 204,
                parameters=parameters_of(query),
            )
            view_class = self._views.setdefault(
                route, type(f"Node{name}View", (base,), {"__doc__": f"{summary}."})
            )
            setattr(view_class, method, document(handle))
            return function

        return add


def answered(message: BaseModel | None, status: int = 200) -> HttpResponse:
    """Return a message as a response; 204 if there is none."""
    if message is None:
        return HttpResponse(status=204)
    return HttpResponse(message.model_dump_json(), status=status, content_type="application/json")


def parameters_of(query: type[BaseModel]) -> list[OpenApiParameter]:
    """Return the OpenAPI parameters of a query model."""
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
