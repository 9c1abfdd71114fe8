"""Requests on stored objects: what they share in reading, listing and answering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

from pydantic import Field, ValidationError

from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.access.snapshot import Snapshot
from assay.gateway.http.asgi import Receive, Scope, Send, encode, respond
from assay.gateway.http.errors import WrongMethod
from assay.gateway.knowledge.retrieval import Asker
from assay.gateway.run.call import Call
from registry.catalog.endpoints import dumps
from registry.catalog.requests import RequestInvalid, Strict, invalid, printable

if TYPE_CHECKING:
    from assay.gateway.runtime import Runtime

Query = TypeVar("Query", bound=Strict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose key is authenticated under `snapshot`."""

    runtime: Runtime
    call: Call
    snapshot: Snapshot
    key: KeyEntry
    asker: Asker
    scope: Scope
    receive: Receive
    send: Send

    @property
    def narrowed(self) -> str:
        """The public ID of a key that is restricted to deployments, and reaches what it made alone;
        empty for any other."""
        return self.key.public_id if self.key.allowed_deployments else ""

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    @property
    def method(self) -> str:
        return str(self.scope["method"])


class PageQuery(Strict):
    """Part of a list: up to `limit` objects after the one of the ID `after`, in this order."""

    limit: Annotated[int, Field(ge=1, le=100, strict=False)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: Annotated[str, Field(max_length=64)] = ""


def read_query(schema: type[Query], scope: Scope) -> Query:
    """Return what the query string asks for.

    Raises:
        RequestInvalid: a parameter is unknown or out of bounds.
    """
    given = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise invalid(error) from None


def refuse_query(scope: Scope) -> None:
    """Raise RequestInvalid if the query string has a parameter."""
    for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        parameter = printable(name)
        raise RequestInvalid(
            f"{parameter} is not supported here; leave it out.",
            param=parameter,
            code="unsupported_parameter",
        )


def require_method(endpoint: str, method: str, allowed: Sequence[str]) -> None:
    """Raise WrongMethod unless `method` is allowed."""
    if method not in allowed:
        raise WrongMethod(f"{endpoint} takes {' or '.join(allowed)}, not {printable(method, 10)}.")


def listed(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Return a page of a list in OpenAI's shape."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


async def answer_json(asked: Asked, shown: dict[str, Any], *, recorded: bool = False) -> None:
    """Answer with `shown`. `recorded`: a service has recorded the request."""
    asked.call.recorded = True
    if not recorded:
        asked.runtime.ledger.record_bounded(asked.call.entry("ok", ran=False))
    await respond(asked.send, 200, encode(dumps(shown)), asked.call.headers())
