"""Queries for files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone

from governance.errors import InvalidInput, NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from registry.files.models import StoredFile


class FileUnknown(NotFound):
    """The file does not exist, or the key may not know of it."""

    code = "file_not_found"


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page, and whether more follow."""

    rows: list[Any]
    has_more: bool


def files_visible_to(actor: Principal, sender: str = "") -> QuerySet[StoredFile]:
    """Return the unexpired files that `actor` may see, the newest first; with `sender`, the public
    ID of a key, only the files of that key.
    """
    rows = StoredFile.objects.select_related("department").filter(expires_at__gt=timezone.now())
    if sender:
        rows = rows.filter(sender=sender)
    return visible_to(actor, Action.FILE_VIEW, rows, resource_type="file")


def file_get(*, actor: Principal, id: str, sender: str = "") -> StoredFile:  # noqa: A002
    """Return a file; `sender` as for `files_visible_to`.

    Raises:
        FileUnknown: the file does not exist, or `actor` may not see it.
    """
    # PostgreSQL rejects NUL even in comparisons.
    file = None if "\0" in id else files_visible_to(actor, sender).filter(pk=id[:64]).first()
    if file is None:
        raise FileUnknown(
            f"File {id[:64]!r} does not exist, has expired, or belongs to another department."
        )
    return file


def file_list(
    *,
    actor: Principal,
    sender: str = "",
    purpose: str = "",
    after: str = "",
    limit: int,
    newest_first: bool = True,
) -> Page:
    """Return up to `limit` files that follow the file with the ID `after`; `sender` as for
    `files_visible_to`.

    Raises:
        InvalidInput: the file `after` does not exist.
    """
    rows = files_visible_to(actor, sender)
    if purpose:
        rows = rows.filter(purpose=purpose)
    return page_after(rows, after=after, limit=limit, newest_first=newest_first)


def page_after(rows: QuerySet[Any], *, after: str, limit: int, newest_first: bool) -> Page:
    """Return up to `limit` rows, in order of creation, that follow the row with the key `after`.

    Raises:
        InvalidInput: the row `after` does not exist.
    """
    if after:
        last = None if "\0" in after else rows.filter(pk=after[:64]).first()
        if last is None:
            raise InvalidInput(
                f"There is no {after[:64]!r} in this list.",
                code="invalid_value",
                hint="Send an ID of the list as `after`.",
            )
        side = "lt" if newest_first else "gt"
        rows = rows.filter(
            Q(**{f"created_at__{side}": last.created_at})
            | Q(**{"created_at": last.created_at, f"pk__{side}": last.pk})
        )
    order = ("-created_at", "-pk") if newest_first else ("created_at", "pk")
    page_rows = list(rows.order_by(*order)[: limit + 1])
    return Page(page_rows[:limit], len(page_rows) > limit)
