"""Pages of audit events in the shape of every other list: {next, previous, results}."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from assay.api.pagination import CursorPagination
from governance.audit.models import AuditEvent
from governance.audit.search.pages import EventPage
from governance.errors import InvalidInput

_PLACE = re.compile(r"([ba])=([0-9]{1,18})")
_WAYS = {"b": "before", "a": "after"}


def size_of(request: Request) -> int:
    """How many events the caller wants on a page.

    Raises:
        InvalidInput: not a whole number from 1 to 100.
    """
    return CursorPagination().get_page_size(request)


def place_of(request: Request) -> dict[str, int]:
    """Return the start of the page, as arguments of `audit_event_page`; empty for the newest.

    Raises:
        InvalidInput: the cursor is not one of this list.
    """
    cursor = request.query_params.get("cursor")
    if cursor is None:
        return {}
    try:
        text = base64.b64decode(cursor[:64].encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        text = ""
    place = _PLACE.fullmatch(text)
    if place is None or len(cursor) > 64:
        raise InvalidInput(
            "The cursor is not valid.",
            hint="Use `next` and `previous` unchanged; start again without a cursor.",
            fields={"cursor": ["Not a cursor of this list."]},
        )
    return {_WAYS[place[1]]: int(place[2])}


def answer(
    request: Request, page: EventPage, rendered: Callable[[list[AuditEvent]], Any]
) -> Response:
    """Return the response for one page of events."""
    return Response(
        {
            "next": _link(request, "b", page.older),
            "previous": _link(request, "a", page.newer),
            "results": rendered(page.events),
        }
    )


def _link(request: Request, way: str, place: int | None) -> str | None:
    if place is None:
        return None
    cursor = base64.urlsafe_b64encode(f"{way}={place}".encode()).decode()
    return str(replace_query_param(request.build_absolute_uri(), "cursor", cursor))
