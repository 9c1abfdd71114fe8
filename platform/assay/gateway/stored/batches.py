"""`/v1/batches`: requests that run when there is capacity, in OpenAI's format."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from assay.gateway.stored.database_desk import department_of
from assay.gateway.stored.requests import (
    ListQuery,
    OwnRequest,
    answer_json,
    list_body,
    read_json,
    read_query,
    refuse_query,
)
from governance.errors import NotPermitted
from governance.principals import Principal
from registry.batches.models import ENDPOINT_MAX
from registry.batches.selectors import batch_as_json, batch_get, batch_list
from registry.batches.services import batch_cancel, batch_create
from registry.catalog.requests import Metadata, Strict
from registry.files.models import LEAST_S, MOST_S

PATH = "/v1/batches"


class OutputExpiry(Strict):
    """Seconds from the creation of a batch's files until they are deleted."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=LEAST_S, le=MOST_S)]


class BatchRequest(Strict):
    """POST /v1/batches."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=64)]
    endpoint: Annotated[str, Field(max_length=ENDPOINT_MAX)]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: OutputExpiry | None = None


async def page(request: OwnRequest) -> None:
    """Answer with a page of batches."""
    part, sender = read_query(ListQuery, request.scope), request.narrowed
    data, has_more = await request.on_files(lambda actor: _list(actor, sender, part))
    await answer_json(request, list_body(data, has_more=has_more))


async def show(request: OwnRequest) -> None:
    """Answer with one batch."""
    refuse_query(request.scope)
    batch = await request.on_files(
        lambda actor: batch_get(actor=actor, id=request.id, sender=request.narrowed)
    )
    await answer_json(request, batch_as_json(batch))


async def cancel(request: OwnRequest) -> None:
    """Cancel a batch."""
    refuse_query(request.scope)
    batch = await request.on_files(
        lambda actor: batch_cancel(actor=actor, id=request.id, sender=request.narrowed)
    )
    await answer_json(request, batch_as_json(batch), recorded=True)
    request.desks.wake_batches()


def _list(actor: Principal, sender: str, part: ListQuery) -> tuple[list[dict[str, Any]], bool]:
    page = batch_list(actor=actor, sender=sender, after=part.after, limit=part.limit)
    return [batch_as_json(batch) for batch in page.rows], page.has_more


async def create(request: OwnRequest) -> None:
    """Create a batch.

    Raises:
        DomainError: it is refused.
    """
    refuse_query(request.scope)
    key = request.key
    body = await read_json(request, BatchRequest)
    if key.person is not None:
        raise NotPermitted(
            "A playground token cannot create batches.",
            code="key_required",
            hint="Use a key of your department.",
        )
    expiry = body.output_expires_after
    batch = await request.on_files(
        lambda actor: batch_create(
            actor=actor,
            department=department_of(key),
            sender=key.public_id,
            key_name=key.name,
            client_address=request.call.client_address,
            classification=request.caller.circumstances.classification,
            input_file=body.input_file_id,
            endpoint=body.endpoint,
            metadata=body.metadata or {},
            narrowed=bool(request.narrowed),
            outputs_expire_s=None if expiry is None else expiry.seconds,
        ),
    )
    await answer_json(request, batch_as_json(batch), recorded=True)
    request.desks.wake_batches()
