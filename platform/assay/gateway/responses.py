"""Stored responses: `GET` and `DELETE /v1/responses/{id}`, and the input items of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import parse_qsl

from pydantic import Field, ValidationError

from assay.gateway.call import Call
from assay.gateway.errors import WrongMethod
from assay.gateway.http import Scope, Send, encode, respond
from assay.gateway.key_entries import KeyEntry
from governance.permissions import Action
from governance.principals import Principal
from registry.catalog.endpoints import dumps
from registry.catalog.requests import RequestInvalid, Strict, invalid, printable
from registry.responses.models import StoredResponse
from registry.responses.selectors import response_get, response_shown
from registry.responses.services import response_delete

if TYPE_CHECKING:
    from assay.gateway.runtime import Runtime

PATH = "/v1/responses"


class ItemsQuery(Strict):
    """Part of the list: up to `limit` items after the one of the ID `after`, in this order."""

    limit: Annotated[int, Field(ge=1, le=100, strict=False)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: Annotated[str, Field(max_length=40)] = ""


def label(path: str) -> str:
    """The path as metrics and the ledger name it; empty when it is not one of a stored response."""
    parts = path.removeprefix(f"{PATH}/").split("/") if path.startswith(f"{PATH}/") else []
    if len(parts) == 1 and parts[0].startswith("resp_"):
        return f"{PATH}/{{id}}"
    if len(parts) == 2 and parts[0].startswith("resp_") and parts[1] == "input_items":
        return f"{PATH}/{{id}}/input_items"
    return ""


def check_method(endpoint: str, method: str) -> None:
    """Raises WrongMethod unless `endpoint` takes `method`."""
    allowed = ("GET",) if endpoint.endswith("/input_items") else ("GET", "DELETE")
    if method not in allowed:
        raise WrongMethod(f"{endpoint} takes {' or '.join(allowed)}, not {printable(method, 10)}.")


def action_of(method: str) -> Action:
    """Return the action that a request on a stored response is."""
    return Action.RESPONSE_DELETE if method == "DELETE" else Action.RESPONSE_VIEW


async def answer(runtime: Runtime, call: Call, key: KeyEntry, scope: Scope, send: Send) -> None:
    """Answer a request on one stored response, and record it.

    Raises:
        DomainError: It is refused.
    """
    path, query = scope["path"], dict(parse_qsl(scope["query_string"].decode("latin-1")))
    name = path.removeprefix(f"{PATH}/").partition("/")[0]
    of_items = path.endswith("/input_items")
    if query and not of_items:
        parameter = printable(next(iter(query)))
        raise RequestInvalid(
            f"{parameter} is not supported here; leave it out.",
            param=parameter,
            code="unsupported_parameter",
        )
    shown: dict[str, Any]
    if scope["method"] == "DELETE":
        await runtime.responses.run(call, key, lambda actor: _delete(actor, key, name))
        shown = {"id": name, "object": "response", "deleted": True}
    else:
        part = _part(query)
        found = await runtime.responses.run(call, key, lambda actor: _get(actor, key, name))
        shown = _listed(found.items, part) if of_items else response_shown(found)
    call.recorded = True
    if scope["method"] != "DELETE":  # The service records the deletion.
        runtime.ledger.record_bounded(call.entry("ok", ran=False))
    await respond(send, 200, encode(dumps(shown)), call.headers())


def _part(query: dict[str, str]) -> ItemsQuery:
    try:
        return ItemsQuery.model_validate(query)
    except ValidationError as error:
        raise invalid(error) from None


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
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + part.limit < len(data),
    }


def _item(item: dict[str, Any]) -> dict[str, Any]:
    if item.get("type", "message") != "message" or not isinstance(item["content"], str):
        return {"status": "completed", "type": "message", **item}
    kind = "output_text" if item["role"] == "assistant" else "input_text"
    part: dict[str, Any] = {"type": kind, "text": item["content"]}
    return {"status": "completed", "type": "message", **item, "content": [part]}
