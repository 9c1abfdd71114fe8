"""Reading stored responses."""

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

# A response that is still in progress after so long lost its gateway.
LOST_AFTER = timedelta(minutes=15)
CHAIN_MAX = 64


class ResponseUnknown(NotFound):
    """No such response, or not one that the key may know of."""

    code = "response_not_found"


CHAT = "chatcmpl-"
RESPONSE = "resp_"


def responses_visible_to(actor: Principal) -> QuerySet[StoredResponse]:
    """Return the unexpired responses that `actor` may see, the newest first; none of a department
    that keeps none."""
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
    """Return a stored response, or with `CHAT` as `kind` a stored chat. `deployments` narrows it to
    those of a narrowed key.

    Raises:
        ResponseUnknown: There is none, or `actor` may not see it.
    """
    rows = responses_visible_to(actor)
    if deployments:
        rows = rows.filter(deployment__in=deployments)
    # PostgreSQL takes no NUL, not even to compare.
    found = None if "\0" in id or not id.startswith(kind) else rows.filter(pk=id[:64]).first()
    if found is None:
        raise _unknown(id)
    return found


def _unknown(id: str) -> ResponseUnknown:  # noqa: A002
    """Return the error for a response that is absent, deleted, expired, or another's."""
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
    """Return a finished response after those that it continues, the oldest first; together at most
    `size_max` bytes.

    Raises:
        ResponseUnknown: One of them does not exist any more, or `actor` may not see it.
        WrongState: It has no answer, or the conversation is too long to go on.
    """
    last = response_get(actor=actor, id=id, deployments=deployments)
    if last.state != ResponseState.FINISHED:
        raise WrongState(
            f"Response {last.pk} has no answer, so it cannot be continued.",
            code="response_not_finished",
        )
    if len(last.ancestors) + 1 >= CHAIN_MAX:
        raise _too_long(f"{CHAIN_MAX} responses, which is the most")
    rows = responses_visible_to(actor).filter(pk__in=last.ancestors)
    if deployments:
        rows = rows.filter(deployment__in=deployments)
    # Before their content is read: a request never takes more memory than a body may.
    size = last.size + sum(rows.values_list("size", flat=True))
    if size > size_max:
        raise _too_long(f"{size:,} bytes; {size_max:,} are the most")
    known = {row.pk: row for row in rows}
    for ancestor in last.ancestors:
        if ancestor not in known:
            raise ResponseUnknown(
                f"Response {ancestor}, which {last.pk} continues, was deleted or has expired.",
                hint="Send the messages as the input of a new response.",
            )
    return [*(known[ancestor] for ancestor in last.ancestors), last]


def _too_long(what: str) -> WrongState:
    return WrongState(
        f"The conversation has {what}.",
        code="conversation_too_long",
        hint="Send what matters of it as the input of a new response.",
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
    """Return up to `limit` finished chats that follow the one of the ID `after`; of one deployment,
    and with these metadata, if they are given.

    Raises:
        InvalidInput: there is no chat `after`.
    """
    rows = responses_visible_to(actor).filter(pk__startswith=CHAT, state=ResponseState.FINISHED)
    if deployments:
        rows = rows.filter(deployment__in=deployments)
    if model:
        rows = rows.filter(deployment=model)
    if metadata:
        rows = rows.filter(response__metadata__contains=dict(metadata))
    return page_after(rows, after=after, limit=limit, newest_first=newest_first)


def response_shown(found: StoredResponse) -> dict[str, Any]:
    """Return the response as its caller got it; one without an end is `failed`."""
    lost = (
        found.state == ResponseState.IN_PROGRESS and found.created_at < timezone.now() - LOST_AFTER
    )
    shown: dict[str, Any] = dict(found.response)
    if lost or found.state == ResponseState.FAILED:
        shown["status"] = "failed"
        shown["error"] = {"code": "server_error", "message": "The request did not complete."}
    return shown


def retention_days(department: Department) -> int:
    """Return for how many days a department keeps responses; 0: it stores none."""
    kept = ResponseRetention.objects.filter(department=department).first()
    return 0 if kept is None else kept.days
