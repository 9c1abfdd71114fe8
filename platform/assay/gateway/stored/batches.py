"""`/v1/batches`: requests that run when there is room, in OpenAI's shapes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from django.conf import settings
from pydantic import Field

from assay.gateway.http.asgi import parsed, read_body
from assay.gateway.stored.database_desk import department_of
from assay.gateway.stored.requests import (
    Asked,
    answer_json,
    listed,
    read_query,
    refuse_query,
    require_method,
)
from governance.errors import NotPermitted
from governance.permissions import Action
from governance.principals import Principal
from registry.batches.models import ENDPOINTS, Batch
from registry.batches.selectors import batch_get, batch_list, batch_shown
from registry.batches.services import batch_cancel, batch_create
from registry.catalog.requests import Metadata, RequestInvalid, Strict, parse, printable
from registry.files.models import LEAST_S, MOST_S

PATH = "/v1/batches"


class OutputExpiry(Strict):
    """Seconds from the creation of a batch's files until they are deleted."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=LEAST_S, le=MOST_S)]


class BatchRequest(Strict):
    """POST /v1/batches."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=64)]
    endpoint: Annotated[str, Field(max_length=64)]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: OutputExpiry | None = None


class BatchesQuery(Strict):
    """Part of the list: up to `limit` batches after the one of the ID `after`, newest first."""

    limit: Annotated[int, Field(ge=1, le=100, strict=False)] = 20
    after: Annotated[str, Field(max_length=64)] = ""


def label(method: str, path: str) -> str:
    """Return the path as metrics and the ledger name it; empty when it is not one of these."""
    if path == PATH:
        return PATH
    parts = path.removeprefix(f"{PATH}/").split("/") if path.startswith(f"{PATH}/") else []
    if len(parts) == 1 and parts[0]:
        return f"{PATH}/{{id}}"
    return f"{PATH}/{{id}}/cancel" if len(parts) == 2 and parts[1] == "cancel" else ""


def check_method(endpoint: str, method: str) -> None:
    """Raise WrongMethod unless `endpoint` takes `method`."""
    taken = {PATH: ("GET", "POST"), f"{PATH}/{{id}}/cancel": ("POST",)}
    require_method(endpoint, method, taken.get(endpoint, ("GET",)))


def action_of(endpoint: str, method: str) -> Action:
    """Return the action that a request is."""
    if method != "POST":
        return Action.BATCH_VIEW
    return Action.BATCH_CANCEL if endpoint.endswith("/cancel") else Action.BATCH_CREATE


async def answer(asked: Asked) -> None:
    """Answer a request on batches, and record it.

    Raises:
        DomainError: it is refused.
    """
    call, key, runtime, sender = asked.call, asked.key, asked.runtime, asked.narrowed
    name = asked.path.removeprefix(PATH).strip("/").partition("/")[0]
    if not name and asked.method == "GET":
        part = read_query(BatchesQuery, asked.scope)
        data, has_more = await runtime.files.run(
            call, key, lambda actor: _list(actor, sender, part)
        )
        await answer_json(asked, listed(data, has_more=has_more))
        return
    refuse_query(asked.scope)
    if not name:
        batch = await _create(asked)
    elif asked.method == "POST":
        batch = await runtime.files.run(
            call, key, lambda actor: batch_cancel(actor=actor, id=name, sender=sender)
        )
    else:
        batch = await runtime.files.run(
            call, key, lambda actor: batch_get(actor=actor, id=name, sender=sender)
        )
    await answer_json(asked, batch_shown(batch), recorded=asked.method == "POST")
    if asked.method == "POST":
        runtime.batches.wake()


def _list(actor: Principal, sender: str, part: BatchesQuery) -> tuple[list[dict[str, Any]], bool]:
    page = batch_list(actor=actor, sender=sender, after=part.after, limit=part.limit)
    return [batch_shown(batch) for batch in page.rows], page.has_more


async def _create(asked: Asked) -> Batch:
    key = asked.key
    body = await read_body(
        asked.scope, asked.receive, settings.GATEWAY_MAX_BODY_BYTES, ("application/json",)
    )
    given = await parsed(body, parse, BatchRequest, body.data)
    if given.endpoint not in ENDPOINTS:
        raise RequestInvalid(
            f"endpoint is {printable(given.endpoint)}; batches take {', '.join(ENDPOINTS)}.",
            param="endpoint",
        )
    if key.person is not None:
        raise NotPermitted(
            "A playground token creates no batches.",
            code="key_required",
            hint="Use a key of your department.",
        )
    expiry = given.output_expires_after
    return await asked.runtime.files.run(
        asked.call,
        key,
        lambda actor: batch_create(
            actor=actor,
            department=department_of(key),
            sender=key.public_id,
            key_name=key.name,
            client_address=asked.call.client_address,
            classification=asked.asker.circumstances.classification,
            input_file=given.input_file_id,
            endpoint=given.endpoint,
            metadata=given.metadata or {},
            narrowed=bool(asked.narrowed),
            outputs_expire_s=None if expiry is None else expiry.seconds,
        ),
    )
