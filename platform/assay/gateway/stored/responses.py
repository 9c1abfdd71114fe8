"""Stored responses: `GET` and `DELETE /v1/responses/{id}`, and the input items of one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from assay.gateway.access.key_entries import KeyEntry
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
from registry.catalog.requests import RequestInvalid, printable
from registry.responses.models import StoredResponse
from registry.responses.selectors import response_get, response_shown
from registry.responses.services import response_delete

PATH = "/v1/responses"


class ItemsQuery(PageQuery):
    """Part of the list of input items."""

    after: Annotated[str, Field(max_length=40)] = ""


def label(method: str, path: str) -> str:
    """The path as metrics and the ledger name it; empty when it is not one of a stored response."""
    parts = path.removeprefix(f"{PATH}/").split("/") if path.startswith(f"{PATH}/") else []
    if len(parts) == 1 and parts[0].startswith("resp_"):
        return f"{PATH}/{{id}}"
    if len(parts) == 2 and parts[0].startswith("resp_") and parts[1] == "input_items":
        return f"{PATH}/{{id}}/input_items"
    return ""


def check_method(endpoint: str, method: str) -> None:
    """Raises WrongMethod unless `endpoint` takes `method`."""
    of_items = endpoint.endswith("/input_items")
    require_method(endpoint, method, ("GET",) if of_items else ("GET", "DELETE"))


def action_of(endpoint: str, method: str) -> Action:
    """Return the action that a request on a stored response is."""
    return Action.RESPONSE_DELETE if method == "DELETE" else Action.RESPONSE_VIEW


async def answer(asked: Asked) -> None:
    """Answer a request on one stored response, and record it.

    Raises:
        DomainError: It is refused.
    """
    name = asked.path.removeprefix(f"{PATH}/").partition("/")[0]
    call, key, desk = asked.call, asked.key, asked.runtime.responses
    of_items = asked.path.endswith("/input_items")
    if not of_items:
        refuse_query(asked.scope)
    if asked.method == "DELETE":
        await desk.run(call, key, lambda actor: _delete(actor, key, name))
        gone = {"id": name, "object": "response", "deleted": True}
        await answer_json(asked, gone, recorded=True)
        return
    part = read_query(ItemsQuery, asked.scope)
    found = await desk.run(call, key, lambda actor: _get(actor, key, name))
    await answer_json(asked, _listed(found.items, part) if of_items else response_shown(found))


def _get(actor: Principal, key: KeyEntry, name: str) -> StoredResponse:
    return response_get(actor=actor, id=name, deployments=key.allowed_deployments)


def _delete(actor: Principal, key: KeyEntry, name: str) -> None:
    response_delete(actor=actor, id=name, deployments=key.allowed_deployments)


def _listed(items: list[dict[str, Any]], part: ItemsQuery) -> dict[str, Any]:
    """The items of the request, each with an ID: a part of the list."""
    data = [{"id": f"item_{number:03d}", **_item(item)} for number, item in enumerate(items)]
    if part.order == "desc":
        data.reverse()
    names = [item["id"] for item in data]
    if part.after and part.after not in names:
        raise RequestInvalid(f"There is no item {printable(part.after)}.", param="after")
    start = names.index(part.after) + 1 if part.after else 0
    shown = data[start : start + part.limit]
    return listed(shown, has_more=start + part.limit < len(data))


def _item(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("type", "message") != "message" or not isinstance(item["content"], str):
        return {"status": "completed", "type": "message", **item}
    kind = "output_text" if item["role"] == "assistant" else "input_text"
    part: dict[str, Any] = {"type": kind, "text": item["content"]}
    return {"status": "completed", "type": "message", **item, "content": [part]}
