"""Stored chats: `GET`, `POST` and `DELETE /v1/chat/completions/{id}`, and their list."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from pydantic import Field, ValidationError

from assay.gateway.http.asgi import Scope
from assay.gateway.stored.requests import (
    OwnRequest,
    PageQuery,
    answer_json,
    list_body,
    part_of,
    read_json,
    read_query,
    refuse_query,
)
from governance.principals import Principal
from registry.catalog.requests import Metadata, Strict, invalid
from registry.responses.models import ResponseState, StoredResponse
from registry.responses.selectors import CHAT, ResponseUnknown, chats_stored, response_get
from registry.responses.services import chat_label, response_delete

PATH = "/v1/chat/completions"
_OF_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)


class ChatsQuery(PageQuery):
    """Page of the list of chats, optionally filtered by model and by all of `metadata`."""

    order: Literal["asc", "desc"] = "asc"
    model: Annotated[str, Field(max_length=200)] = ""
    metadata: Metadata = Field(default_factory=dict)


class MessagesQuery(PageQuery):
    """Page of the list of a chat's messages."""

    order: Literal["asc", "desc"] = "asc"


class UpdateRequest(Strict):
    """POST /v1/chat/completions/{id}. It replaces the metadata; null removes them."""

    metadata: Metadata | None


async def page(request: OwnRequest) -> None:
    """Answer with a page of chats."""
    part, narrowed = _read_list(request.scope), request.key.allowed_deployments
    await answer_json(
        request, await request.on_responses(lambda actor: _list(actor, part, narrowed))
    )


async def show(request: OwnRequest) -> None:
    """Answer with one chat."""
    refuse_query(request.scope)
    await answer_json(request, (await _get(request)).response)


async def messages(request: OwnRequest) -> None:
    """Answer with a page of a chat's messages."""
    part = read_query(MessagesQuery, request.scope)
    chat = await _get(request)
    data = [{"id": f"{chat.pk}-{index}", **_message(item)} for index, item in enumerate(chat.items)]
    await answer_json(request, part_of(data, part, "message"))


async def update(request: OwnRequest) -> None:
    """Replace the metadata of a chat."""
    refuse_query(request.scope)
    metadata = (await read_json(request, UpdateRequest)).metadata or {}
    narrowed = request.key.allowed_deployments
    chat = await request.on_responses(
        lambda actor: chat_label(
            actor=actor, id=request.id, metadata=metadata, deployments=narrowed
        ),
    )
    await answer_json(request, chat.response, recorded=True)


async def delete(request: OwnRequest) -> None:
    """Delete a chat."""
    refuse_query(request.scope)
    narrowed = request.key.allowed_deployments
    await request.on_responses(
        lambda actor: response_delete(actor=actor, id=request.id, deployments=narrowed, kind=CHAT),
    )
    deleted = {"id": request.id, "object": "chat.completion.deleted", "deleted": True}
    await answer_json(request, deleted, recorded=True)


async def _get(request: OwnRequest) -> StoredResponse:
    name, narrowed = request.id, request.key.allowed_deployments

    def get(actor: Principal) -> StoredResponse:
        chat = response_get(actor=actor, id=name, deployments=narrowed, kind=CHAT)
        if chat.state != ResponseState.FINISHED:
            raise ResponseUnknown(f"Chat {name[:64]!r} has no answer.")
        return chat

    return await request.on_responses(get)


def _read_list(scope: Scope) -> ChatsQuery:
    parameters: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if (key := _OF_METADATA.fullmatch(name)) is not None:
            metadata[key[1]] = value
        else:
            parameters[name] = value
    if metadata:
        parameters["metadata"] = metadata
    try:
        return ChatsQuery.model_validate(parameters)
    except ValidationError as error:
        raise invalid(error) from None


def _list(actor: Principal, part: ChatsQuery, narrowed: frozenset[str]) -> dict[str, Any]:
    if "\0" in part.model or any("\0" in key + value for key, value in part.metadata.items()):
        return list_body([], has_more=False)  # PostgreSQL accepts no NUL, not even in a comparison.
    page = chats_stored(
        actor=actor,
        deployments=narrowed,
        model=part.model,
        metadata=part.metadata,
        after=part.after,
        limit=part.limit,
        newest_first=part.order == "desc",
    )
    return list_body([row.response for row in page.rows], has_more=page.has_more)


def _message(item: dict[str, Any]) -> dict[str, Any]:
    content = item.get("content")
    if not isinstance(content, list):
        return {"content": None, **item, "content_parts": None}
    text = "\n".join(part["text"] for part in content)
    return {**item, "content": text, "content_parts": content}
