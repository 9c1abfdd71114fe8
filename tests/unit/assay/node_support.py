"""A node in the process of the test: its requests go to Django without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.test import Client
from django.utils import timezone

from tests.database_roles import stepped_out
from tests.unit.workers import company
from workers.nodes.models import Node
from workers.nodes.services import node_enroll, node_join
from workers.placement.models import Placement
from workers.remote.client import NodeClient
from workers.remote.identity import Identity, identity_write

URL = "http://127.0.0.1:8000"
Spoil = Callable[[httpx.Request, httpx.Response], httpx.Response]


class DjangoTransport(httpx.BaseTransport):
    """Hands requests to Django. `spoil` may break an answer, or raise in its place."""

    def __init__(self, spoil: Spoil | None = None) -> None:
        self.spoil = spoil
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        with stepped_out():
            return self._answered(request)

    def _answered(self, request: httpx.Request) -> httpx.Response:
        wanted = ("authorization", "range", "x-request-id")
        answer = Client(raise_request_exception=False).generic(
            request.method,
            request.url.raw_path.decode(),
            request.read(),
            content_type=request.headers.get("content-type", ""),
            headers={name: request.headers[name] for name in wanted if name in request.headers},
        )
        content = b"".join(answer.streaming_content) if answer.streaming else answer.content
        made = httpx.Response(
            answer.status_code, headers=dict(answer.items()), content=content, request=request
        )
        if request.method == "HEAD":
            made.headers["content-length"] = answer.headers.get("Content-Length", "0")
        return self.spoil(request, made) if self.spoil else made


def node_made(folder: Path, name: str = "gpu-1") -> Node:
    """Enroll and join a machine whose key file is `folder`/key."""
    identity = Identity(name, Ed25519PrivateKey.generate())
    identity_write(folder / "key", identity)
    _, token, _ = node_enroll(actor=company.person("ada", "admin"), name=name)
    return node_join(token=token, public_key=identity.public_key)


def client_of(folder: Path, transport: DjangoTransport | None = None) -> NodeClient:
    """A process of the machine whose key file is `folder`/key."""
    return NodeClient(URL, folder / "key", transport=transport or DjangoTransport())


def place(deployment_id: int, worker: str) -> None:
    """Assign a deployment, as the controller does."""
    Placement.objects.create(deployment_id=deployment_id, worker=worker, since=timezone.now())
