"""Pages by an opaque cursor: stable while rows are added, and the last is as fast as the first."""

from __future__ import annotations

import re
from typing import Any

from rest_framework import exceptions, pagination
from rest_framework.request import Request

from governance.errors import InvalidInput

MAX_PAGE_SIZE = 100
# A row's ID or its time of creation, in Python's format.
POSITION = re.compile(r"\d{1,18}|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?(\+\d\d:\d\d)?")


class CursorPagination(pagination.CursorPagination):
    """{next, previous, results}, newest first. A view may define another `ordering`."""

    page_size = 25
    page_size_query_param = "page_size"
    max_page_size = MAX_PAGE_SIZE
    ordering = ("-id",)

    def get_ordering(self, request: Request, queryset: Any, view: Any) -> tuple[str, ...]:
        return tuple(getattr(view, "ordering", self.ordering))

    def get_page_size(self, request: Request) -> int:
        """Return the page size. Raises InvalidInput unless it is an integer from 1 to 100."""
        text = request.query_params.get("page_size")
        if text is None:
            return self.page_size
        if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_PAGE_SIZE:
            sentence = f"A page has 1 to {MAX_PAGE_SIZE} rows."
            raise InvalidInput(sentence, fields={"page_size": [sentence]})
        return int(text)

    def decode_cursor(self, request: Request) -> Any:
        """Return the decoded cursor. Raises InvalidInput if it is not one of our cursors."""
        refusal = InvalidInput(
            "The cursor is not valid.",
            hint="Use `next` and `previous` unchanged; start again without a cursor.",
            fields={"cursor": ["Not a cursor of this list."]},
        )
        try:
            cursor = super().decode_cursor(request)
        except exceptions.NotFound:
            raise refusal from None
        if cursor is not None and cursor.position is not None:
            position = str(cursor.position)
            by_time = self.ordering[0].lstrip("-").endswith("_at")
            if not POSITION.fullmatch(position) or by_time != ("-" in position):
                raise refusal
        return cursor
