"""Stored responses: `GET` and `DELETE /v1/responses/{id}`, and their input items."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from assay.gateway.stored.requests import (
    OwnRequest,
    PageQuery,
    answer_json,
    part_of,
    read_query,
    refuse_query,
)
from registry.responses.models import StoredResponse
from registry.responses.selectors import response_as_json, response_get
from registry.responses.services import response_delete

PATH = "/v1/responses"


class ItemsQuery(PageQuery):
    """Page of the list of input items."""

    after: Annotated[str, Field(max_length=40)] = ""


async def show(request: OwnRequest) -> None:
    """Answer with one stored response."""
    refuse_query(request.scope)
    await answer_json(request, response_as_json(await _get(request)))


async def items(request: OwnRequest) -> None:
    """Answer with a page of the request's input items, each with an ID."""
    part = read_query(ItemsQuery, request.scope)
    rows = enumerate((await _get(request)).items)
    data = [{"id": f"item_{number:03d}", **_item(item)} for number, item in rows]
    await answer_json(request, part_of(data, part, "item"))


async def delete(request: OwnRequest) -> None:
    """Delete one stored response."""
    refuse_query(request.scope)
    narrowed = request.key.allowed_deployments
    await request.on_responses(
        lambda actor: response_delete(actor=actor, id=request.id, deployments=narrowed),
    )
    deleted = {"id": request.id, "object": "response", "deleted": True}
    await answer_json(request, deleted, recorded=True)


async def _get(request: OwnRequest) -> StoredResponse:
    narrowed = request.key.allowed_deployments
    return await request.on_responses(
        lambda actor: response_get(actor=actor, id=request.id, deployments=narrowed),
    )


def _item(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("type", "message") != "message" or not isinstance(item["content"], str):
        return {"status": "completed", "type": "message", **item}
    kind = "output_text" if item["role"] == "assistant" else "input_text"
    part: dict[str, Any] = {"type": kind, "text": item["content"]}
    return {"status": "completed", "type": "message", **item, "content": [part]}
