"""Read a page of a dataset version's rows: in the order of its file, or searched and sorted.

Rows are JSON lines without an index. A page other than the first may need the whole file, up to
gigabytes. Large files are read in a process with bounds on time and memory, so that they do not
delay the requests that the web process answers; small ones here, because a process takes longer to
start.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from governance.errors import Unavailable
from registry.datasets.models import DatasetVersion
from registry.datasets.row_search import Search, search_rows
from registry.datasets.schemas import RowsQuery
from registry.datasets.stored import PREVIEW_ROWS
from registry.datasets.tables import MAX_ROW_BYTES
from registry.sandbox.places import FairPlaces
from registry.sandbox.readers import AT_ONCE, Broken, Reach, output_of
from registry.storage import store

ROWS = PREVIEW_ROWS
# Bytes after which a page ends early.
READ_BYTES = 2 * MAX_ROW_BYTES
# Files up to this size are searched and sorted here, in 0.01 s of processor time.
SMALL_BYTES = 1024**2
# Maximum number of sorted rows that pages reach; the other direction shows the other end.
SORTED_MAX = 10_000
# Time to search or sort. Two million short rows take 0.3 to 2.2 s of processor time.
SEARCH_S = 8.0
# Includes the start of the process on a busy machine.
_DEADLINE_S = 20.0
_MEMORY_BYTES = 512 * 1024**2
_MODULE = "registry.datasets.row_search"
# Each running or waiting search holds a thread of the web process: together at most half of them.
_WAITING = max(1, settings.WEB_THREADS // 2 - AT_ONCE)
_places = FairPlaces(
    AT_ONCE,
    wait_s=10.0,
    waiting=(_WAITING, _WAITING),
    refusal="Too many people are searching datasets; try again in a few seconds.",
)


@dataclass(frozen=True, slots=True)
class Scope:
    """Searched and sorted part of a version: the `columns` of a search, the number of `rows` at the
    beginning of the file, and of `characters` at the beginning of each text."""

    columns: Sequence[str]
    rows: int
    characters: int = MAX_ROW_BYTES


@dataclass(frozen=True, slots=True)
class RowsPage:
    """Rows with their numbers, from 1; `matches` is the number of all rows that match. If time ran
    out (`cut`), both are from the first `read` rows of the file."""

    rows: list[tuple[int, Mapping[str, Any]]]
    matches: int
    read: int
    cut: bool = False


def rows_read(
    version: DatasetVersion, query: RowsQuery, scope: Scope, sort: tuple[str, str] | None
) -> RowsPage:
    """Return the page of `query`. `sort` is a column and one of its features, which may be empty;
    None keeps the order of the file. Callers check access.

    Raises:
        Unavailable: the rows are missing from the store or damaged, or the machine is too busy.
        QuotaExceeded: too many people of the department wait for a search.
    """
    try:
        if query.row == 1 and not query.q and sort is None:
            return RowsPage(_first_rows(version), version.rows, version.rows)
        return _searched(version, query, scope, sort)
    except FileNotFoundError as error:
        raise Unavailable(
            f"The rows of {version} are not in the artifact store.",
            hint=store.RESTORE,
        ) from error
    except ValueError as error:
        raise Unavailable(
            f"The stored rows of {version} are damaged.", hint=store.RESTORE
        ) from error


def _first_rows(version: DatasetVersion) -> list[tuple[int, Mapping[str, Any]]]:
    rows: list[tuple[int, Mapping[str, Any]]] = []
    read = 0
    with store.file_open(version.digest) as lines:
        while len(rows) < ROWS and read < READ_BYTES and (line := lines.readline(READ_BYTES)):
            read += len(line)
            rows.append((len(rows) + 1, json.loads(line)))
    return rows


def _searched(
    version: DatasetVersion, query: RowsQuery, scope: Scope, sort: tuple[str, str] | None
) -> RowsPage:
    selects = bool(query.q or sort)
    search = Search(
        text=query.q,
        columns=tuple(scope.columns),
        characters=scope.characters,
        sort=sort,
        descending=query.order == "desc",
        first=query.row,
        rows=ROWS,
        # Without a selection, a row's place in the file is no statement about its text.
        most_rows=scope.rows if selects else version.rows,
        row_bytes=READ_BYTES,
        seconds=SEARCH_S,
        sorted_most=SORTED_MAX,
    )
    if version.size_bytes <= SMALL_BYTES:
        with store.file_open(version.digest) as file:
            page = search_rows(file, search)
    else:
        with _places.place(str(version.dataset.department_id)):
            page = search_file(store.file_path(version.digest), search)
    rows = [(number, row) for number, row in page["rows"]]
    cut = bool(page["cut"])
    matches = page["matches"] if selects or cut else version.rows
    return RowsPage(rows, matches, page["read"], cut)


def search_file(path: Path, search: Search) -> dict[str, Any]:
    """Run `search_rows` in a process of its own. Raises Unavailable, and ValueError as it does."""
    try:
        page = output_of(
            _MODULE,
            {"path": str(path), "search": asdict(search), "memory": _MEMORY_BYTES},
            reach=Reach(read=[path]),
            seconds=_DEADLINE_S,
            max_bytes=READ_BYTES + 2 * MAX_ROW_BYTES,
        )
    except (Broken, subprocess.TimeoutExpired) as error:
        raise Unavailable(
            "The machine had too little time or memory to search the rows.",
            hint="Try again later.",
            retry_after=30,
        ) from error
    if "damaged" in page:
        raise ValueError(path.name)
    return dict(page)
