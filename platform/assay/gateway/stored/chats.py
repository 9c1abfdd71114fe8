"""Stored chats: what `GET`, `POST` and `DELETE /v1/chat/completions/{id}` reach, and their list."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from django.conf import settings
from pydantic import Field, ValidationError

from assay.gateway.http.asgi import Scope, parsed, read_body
from assay.gateway.stored.requests import (
    Asked,
    PageQuery,
    answer_json,
    listed,
    read_query,
    refuse_query,
    require_method,
)
from governance.permissions import Action
from governance.principals import Principal
from registry.catalog.requests import Metadata, RequestInvalid, Strict, invalid, parse, printable
from registry.responses.models import ResponseState, StoredResponse
from registry.responses.selectors import CHAT, ResponseUnknown, chats_stored, response_get
from registry.responses.services import chat_label, response_delete

PATH = "/v1/chat/completions"
_OF_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)


class ChatsQuery(PageQuery):
    """Part of the list of chats; of one model, and with all of `metadata`, if they are given."""

    order: Literal["asc", "desc"] = "asc"
    model: Annotated[str, Field(max_length=200)] = ""
    metadata: Metadata = Field(default_factory=dict)


class MessagesQuery(PageQuery):
    """Part of the list of a chat's messages."""

    order: Literal["asc", "desc"] = "asc"


class UpdateRequest(Strict):
    """POST /v1/chat/completions/{id}. It replaces the metadata; null removes them."""

    metadata: Metadata | None


def label(method: str, path: str) -> str:
    """Return the path as metrics and the ledger name it; empty when it is not one of these."""
    if path == PATH:
        return PATH if method == "GET" else ""
    parts = path.removeprefix(f"{PATH}/").split("/") if path.startswith(f"{PATH}/") else []
    if not parts or not parts[0].startswith(CHAT):
        return ""
    if len(parts) == 1:
        return f"{PATH}/{{id}}"
    return f"{PATH}/{{id}}/messages" if parts[1:] == ["messages"] else ""


def check_method(endpoint: str, method: str) -> None:
    """Raise WrongMethod unless `endpoint` takes `method`."""
    one = endpoint == f"{PATH}/{{id}}"
    require_method(endpoint, method, ("GET", "POST", "DELETE") if one else ("GET",))


def action_of(endpoint: str, method: str) -> Action:
    """Return the action that a request is."""
    changes = {"POST": Action.RESPONSE_UPDATE, "DELETE": Action.RESPONSE_DELETE}
    return changes.get(method, Action.RESPONSE_VIEW)


async def answer(asked: Asked) -> None:
    """Answer a request on stored chats, and record it.

    Raises:
        DomainError: it is refused.
    """
    call, key, desk = asked.call, asked.key, asked.runtime.responses
    name = asked.path.removeprefix(PATH).strip("/").partition("/")[0]
    narrowed = key.allowed_deployments
    if not name:
        part = _read_list(asked.scope)
        page = await desk.run(call, key, lambda actor: _list(actor, part, narrowed))
        await answer_json(asked, page)
        return
    if asked.path.endswith("/messages"):
        wanted = read_query(MessagesQuery, asked.scope)
        found = await desk.run(call, key, lambda actor: _get(actor, name, narrowed))
        await answer_json(asked, _messages(found, wanted))
        return
    refuse_query(asked.scope)
    if asked.method == "DELETE":
        await desk.run(
            call,
            key,
            lambda actor: response_delete(actor=actor, id=name, deployments=narrowed, kind=CHAT),
        )
        gone = {"id": name, "object": "chat.completion.deleted", "deleted": True}
        await answer_json(asked, gone, recorded=True)
    elif asked.method == "POST":
        limit = settings.GATEWAY_MAX_BODY_BYTES
        body = await read_body(asked.scope, asked.receive, limit, ("application/json",))
        metadata = (await parsed(body, parse, UpdateRequest, body.data)).metadata or {}
        found = await desk.run(
            call,
            key,
            lambda actor: chat_label(actor=actor, id=name, metadata=metadata, deployments=narrowed),
        )
        await answer_json(asked, found.response, recorded=True)
    else:
        found = await desk.run(call, key, lambda actor: _get(actor, name, narrowed))
        await answer_json(asked, found.response)


def _read_list(scope: Scope) -> ChatsQuery:
    given: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if (key := _OF_METADATA.fullmatch(name)) is not None:
            metadata[key[1]] = value
        else:
            given[name] = value
    try:
        return ChatsQuery.model_validate({**given, **({"metadata": metadata} if metadata else {})})
    except ValidationError as error:
        raise invalid(error) from None


def _list(actor: Principal, part: ChatsQuery, narrowed: frozenset[str]) -> dict[str, Any]:
    if "\0" in part.model or any("\0" in key + value for key, value in part.metadata.items()):
        return listed([], has_more=False)  # PostgreSQL takes no NUL, not even to compare.
    page = chats_stored(
        actor=actor,
        deployments=narrowed,
        model=part.model,
        metadata=part.metadata,
        after=part.after,
        limit=part.limit,
        newest_first=part.order == "desc",
    )
    return listed([row.response for row in page.rows], has_more=page.has_more)


def _get(actor: Principal, name: str, narrowed: frozenset[str]) -> StoredResponse:
    found = response_get(actor=actor, id=name, deployments=narrowed, kind=CHAT)
    if found.state != ResponseState.FINISHED:
        raise ResponseUnknown(f"Chat {name[:64]!r} has no answer.")
    return found


def _messages(found: StoredResponse, part: MessagesQuery) -> dict[str, Any]:
    data = [
        {"id": f"{found.pk}-{number}", **_message(item)} for number, item in enumerate(found.items)
    ]
    if part.order == "desc":
        data.reverse()
    names = [item["id"] for item in data]
    if part.after and part.after not in names:
        raise RequestInvalid(f"There is no message {printable(part.after)}.", param="after")
    start = names.index(part.after) + 1 if part.after else 0
    shown = data[start : start + part.limit]
    return listed(shown, has_more=start + part.limit < len(data))


def _message(item: dict[str, Any]) -> dict[str, Any]:
    content = item.get("content")
    if not isinstance(content, list):
        return {"content": None, **item, "content_parts": None}
    text = "\n".join(part["text"] for part in content)
    return {**item, "content": text, "content_parts": content}
