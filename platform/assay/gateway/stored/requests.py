"""Shared code of requests on stored objects: parsing, lists and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

from django.conf import settings
from pydantic import Field, ValidationError

from assay.gateway.access.admission import Caller
from assay.gateway.access.call import Call
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.access.snapshot import Snapshot
from assay.gateway.http.asgi import Receive, Scope, Send, encode, parsed, read_body, respond
from assay.gateway.knowledge.retrieval import Retrieval
from assay.gateway.quota.ledger import Ledger
from assay.gateway.stored.conversations import ResponseDesk
from assay.gateway.stored.feedback import FeedbackDesk
from assay.gateway.stored.uploads import FileDesk
from governance.principals import Principal
from registry.catalog.endpoints import dumps
from registry.catalog.requests import RequestInvalid, Strict, invalid, parse, printable

Query = TypeVar("Query", bound=Strict)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Desks:
    """Parts of a gateway process that requests on stored objects use."""

    ledger: Ledger
    retrieval: Retrieval
    responses: ResponseDesk
    files: FileDesk
    feedback: FeedbackDesk
    wake_batches: Callable[[], None]


@dataclass(frozen=True, slots=True)
class OwnRequest:
    """A request whose key was authenticated with `snapshot`. `id` is the ID in its path."""

    desks: Desks
    call: Call
    id: str
    snapshot: Snapshot
    key: KeyEntry
    caller: Caller
    scope: Scope
    receive: Receive
    send: Send

    @property
    def narrowed(self) -> str:
        """Public ID of a key that is restricted to deployments and so only accesses its own
        objects; empty for any other key."""
        return self.key.public_id if self.key.allowed_deployments else ""

    async def on_files(self, work: Callable[[Principal], T]) -> T:
        """Return the result of `work` on files and batches with the key's rights."""
        return await self.desks.files.run(self.call, self.key, work)

    async def on_responses(self, work: Callable[[Principal], T]) -> T:
        """Return the result of `work` on stored responses with the key's rights."""
        return await self.desks.responses.run(self.call, self.key, work)


class ListQuery(Strict):
    """Page of a list: up to `limit` objects after the one with the ID `after`."""

    limit: Annotated[int, Field(ge=1, le=100, strict=False)] = 20
    after: Annotated[str, Field(max_length=64)] = ""


class PageQuery(ListQuery):
    """Page of a list with a sort order."""

    order: Literal["asc", "desc"] = "desc"


def read_query(schema: type[Query], scope: Scope) -> Query:
    """Return the parameters of the query string.

    Raises:
        RequestInvalid: a parameter is unknown or out of bounds.
    """
    parameters = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    try:
        return schema.model_validate(parameters)
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


async def read_json(request: OwnRequest, schema: type[Query]) -> Query:
    """Return the body. Raises DomainError if it does not match `schema` or arrives too late."""
    limit = settings.GATEWAY_MAX_BODY_BYTES
    body = await read_body(request.scope, request.receive, limit, ("application/json",))
    return await parsed(body, parse, schema, body.data)


def list_body(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Return a page of a list in OpenAI's format."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def part_of(data: list[dict[str, Any]], part: PageQuery, what: str) -> dict[str, Any]:
    """Return a page of the complete list `data`, which is sorted oldest first.

    Raises:
        RequestInvalid: `part.after` is not the ID of one of its objects.
    """
    if part.order == "desc":
        data.reverse()
    names = [each["id"] for each in data]
    if part.after and part.after not in names:
        raise RequestInvalid(f"There is no {what} {printable(part.after)}.", param="after")
    start = names.index(part.after) + 1 if part.after else 0
    page = data[start : start + part.limit]
    return list_body(page, has_more=start + part.limit < len(data))


def note_answer(request: OwnRequest) -> None:
    """Record that the request was answered, at a bounded rate."""
    request.call.recorded = True
    request.desks.ledger.record_bounded(request.call.entry("ok", ran=False))


async def answer_json(
    request: OwnRequest, body: dict[str, Any], *, recorded: bool = False, status: int = 200
) -> None:
    """Answer with `body`. `recorded`: a service has already recorded the request."""
    if recorded:
        request.call.recorded = True
    else:
        note_answer(request)
    await respond(request.send, status, encode(dumps(body)), request.call.headers())
