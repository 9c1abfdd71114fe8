"""Queries for stored responses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from governance.errors import NotFound, WrongState
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from registry.files.selectors import Page, page_after
from registry.responses.models import ResponseRetention, ResponseState, StoredResponse

# A response that is in progress for longer has lost its gateway.
LOST_AFTER = timedelta(minutes=15)
CHAIN_MAX = 64


class ResponseUnknown(NotFound):
    """The response does not exist, or the key may not know of it."""

    code = "response_not_found"


CHAT = "chatcmpl-"
RESPONSE = "resp_"


def responses_visible_to(actor: Principal) -> QuerySet[StoredResponse]:
    """Return unexpired responses that `actor` may see and departments keep, the newest first."""
    keeps = ResponseRetention.objects.filter(department=OuterRef("department"), days__gt=0)
    rows = StoredResponse.objects.select_related("department")
    rows = rows.filter(Exists(keeps), expires_at__gt=timezone.now())
    return visible_to(actor, Action.RESPONSE_VIEW, rows, resource_type="response")


def response_get(
    *,
    actor: Principal,
    id: str,  # noqa: A002
    deployments: Collection[str] = (),
    kind: str = RESPONSE,
) -> StoredResponse:
    """Return a stored response, or a stored chat with `kind` `CHAT`. `deployments` restricts it to
    the deployments of a restricted key.

    Raises:
        ResponseUnknown: The response does not exist, or `actor` may not see it.
    """
    rows = responses_visible_to(actor)
    if deployments:
        rows = rows.filter(deployment__in=deployments)
    # PostgreSQL rejects NUL even in comparisons.
    response = None if "\0" in id or not id.startswith(kind) else rows.filter(pk=id[:64]).first()
    if response is None:
        raise _unknown(id)
    return response


def _unknown(id: str) -> ResponseUnknown:  # noqa: A002
    """Return the error for a response that is missing, deleted, expired, or not the actor's."""
    return ResponseUnknown(
        f"Response {id[:64]!r} does not exist, has expired, or belongs to another department.",
        hint="Responses are stored if your department keeps them.",
    )


def response_chain(
    *,
    actor: Principal,
    id: str,  # noqa: A002
    deployments: Collection[str] = (),
    size_max: int,
) -> list[StoredResponse]:
    """Return the earlier responses of a conversation, the oldest first, and a finished response;
    together at most `size_max` bytes.

    Raises:
        ResponseUnknown: One of them no longer exists, or `actor` may not see it.
        WrongState: It has no answer, or the conversation is too long to continue.
    """
    last = response_get(actor=actor, id=id, deployments=deployments)
    if last.state != ResponseState.FINISHED:
        raise WrongState(
            f"Response {last.pk} has no answer, so it cannot be continued.",
            code="response_not_finished",
        )
    if len(last.ancestors) + 1 >= CHAIN_MAX:
        raise _too_long(f"{CHAIN_MAX} responses, which is the maximum")
    rows = responses_visible_to(actor).filter(pk__in=last.ancestors)
    if deployments:
        rows = rows.filter(deployment__in=deployments)
    # Check before reading their content, so that a request needs no more memory than a body may.
    size = last.size + sum(rows.values_list("size", flat=True))
    if size > size_max:
        raise _too_long(f"{size:,} bytes; at most {size_max:,} are allowed")
    rows_by_id = {row.pk: row for row in rows}
    for ancestor in last.ancestors:
        if ancestor not in rows_by_id:
            raise ResponseUnknown(
                f"Response {ancestor}, which {last.pk} continues, was deleted or has expired.",
                hint="Send the messages as the input of a new response.",
            )
    return [*(rows_by_id[ancestor] for ancestor in last.ancestors), last]


def _too_long(what: str) -> WrongState:
    return WrongState(
        f"The conversation has {what}.",
        code="conversation_too_long",
        hint="Send the relevant part as the input of a new response.",
    )


def chats_stored(
    *,
    actor: Principal,
    deployments: Collection[str] = (),
    model: str = "",
    metadata: Mapping[str, str] | None = None,
    after: str = "",
    limit: int,
    newest_first: bool = False,
) -> Page:
    """Return up to `limit` finished chats that follow the chat with the ID `after`, optionally
    filtered by deployment (`model`) and metadata.

    Raises:
        InvalidInput: the chat `after` does not exist.
    """
    rows = responses_visible_to(actor).filter(pk__startswith=CHAT, state=ResponseState.FINISHED)
    if deployments:
        rows = rows.filter(deployment__in=deployments)
    if model:
        rows = rows.filter(deployment=model)
    if metadata:
        rows = rows.filter(response__metadata__contains=dict(metadata))
    return page_after(rows, after=after, limit=limit, newest_first=newest_first)


def response_as_json(row: StoredResponse) -> dict[str, Any]:
    """Return the response as sent to its caller, or as `failed` if it was never completed."""
    lost = row.state == ResponseState.IN_PROGRESS and row.created_at < timezone.now() - LOST_AFTER
    body: dict[str, Any] = dict(row.response)
    if lost or row.state == ResponseState.FAILED:
        body["status"] = "failed"
        body["error"] = {"code": "server_error", "message": "The request did not complete."}
    return body


def retention_days(department: Department) -> int:
    """Return the number of days for which a department keeps responses; 0 if it stores none."""
    retention = ResponseRetention.objects.filter(department=department).first()
    return 0 if retention is None else retention.days
