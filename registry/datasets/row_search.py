"""Search and sort the canonical rows of one file.

Large files are searched in a process of its own (`rows.py`). Does not load Django.
"""

from __future__ import annotations

import heapq
import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

# Number of bytes between two checks of the time.
_TICK_BYTES = 1024**2
# Maximum characters of a text by which rows are sorted.
_KEY_CHARACTERS = 200

# Number of a row, counted from 1; its offset in the file; its line.
Line = tuple[int, int, bytes]


@dataclass(frozen=True, slots=True)
class Search:
    """One page of a search.

    Attributes:
        columns: Columns in which `text` is searched, ignoring case; all rows match an empty text.
        characters: Number of characters at the beginning of each text that are searched.
        sort: Column to sort by, and one of its features or an empty text; None for the file's
            order.
        first: Position of the page's first row among the matches, from 1.
        rows: Maximum number of rows of the page.
        most_rows: Number of rows at the beginning of the file that are read.
        row_bytes: Number of bytes after which a page ends early.
        seconds: Time after which no further rows are read.
        sorted_most: Maximum number of sorted rows that can be reached.
    """

    text: str
    columns: tuple[str, ...]
    characters: int
    sort: tuple[str, str] | None
    descending: bool
    first: int
    rows: int
    most_rows: int
    row_bytes: int
    seconds: float
    sorted_most: int


class _Reader:
    """Reads the lines of a file until the time is over."""

    def __init__(self, file: BinaryIO, seconds: float) -> None:
        self._file = file
        self._deadline = time.monotonic() + seconds
        self.read = 0
        self.cut = False

    def lines(self) -> Iterator[Line]:
        offset, checked = 0, 0
        for line in self._file:
            if offset - checked > _TICK_BYTES:
                checked = offset
                if time.monotonic() > self._deadline:
                    self.cut = True
                    return
            self.read += 1
            yield self.read, offset, line
            offset += len(line)


def search_rows(file: BinaryIO, search: Search) -> dict[str, Any]:
    """Return `rows` as pairs of number and row, the number of `matches`, and the number of rows
    that were `read`; `cut` is true if time ran out. Raises ValueError for a damaged line."""
    reader = _Reader(file, search.seconds)
    lines = _matching(islice(reader.lines(), search.most_rows), search)
    if search.sort is None:
        page, matches = _in_order(lines, search)
    else:
        page, matches = _sorted(file, lines, search, *search.sort)
    return {"rows": page, "matches": matches, "read": reader.read, "cut": reader.cut}


def _matching(lines: Iterable[Line], search: Search) -> Iterable[Line]:
    if not search.text:
        return lines
    needle = search.text.casefold()
    # Parse only lines that contain the text somewhere, as JSON writes it.
    written = json.dumps(search.text, ensure_ascii=False)[1:-1].casefold()
    return (
        line
        for line in lines
        if written in line[2].decode().casefold() and _has(orjson.loads(line[2]), needle, search)
    )


def _has(row: Mapping[str, Any], needle: str, search: Search) -> bool:
    return any(
        needle in text[: search.characters].casefold()
        for name in search.columns
        for text in texts(row.get(name))
    )


def texts(value: Any) -> Iterator[str]:
    """Yield the texts and numbers in a value. Numbers in lists and the roles of messages are left
    out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (int, float)):
        yield str(value)
    elif isinstance(value, dict):
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, dict):
                parts = [each["content"]] if "content" in each else each.values()
                yield from (part for part in parts if isinstance(part, str))
            elif isinstance(each, str):
                yield each


def _in_order(lines: Iterable[Line], search: Search) -> tuple[list[Any], int]:
    page: list[Any] = []
    matches = size = 0
    for number, _, line in lines:
        matches += 1
        is_open = len(page) < search.rows and size < search.row_bytes
        if matches >= search.first and is_open:
            page.append([number, orjson.loads(line)])
            size += len(line)
        elif page and not search.text:
            # The version knows its number of rows.
            break
    return page, matches


def _sorted(
    file: BinaryIO, lines: Iterable[Line], search: Search, column: str, feature: str
) -> tuple[list[Any], int]:
    matches = 0

    def keyed() -> Iterator[tuple[Any, int, int]]:
        nonlocal matches
        for number, offset, line in lines:
            matches += 1
            value = orjson.loads(line).get(column)
            if feature and isinstance(value, dict):
                value = value.get(feature)
            yield _key(value, descending=search.descending), number, offset

    most = min(search.first + search.rows - 1, search.sorted_most)
    choose = heapq.nlargest if search.descending else heapq.nsmallest
    chosen = choose(most, keyed(), key=lambda each: each[0])
    page: list[Any] = []
    size = 0
    for _, number, offset in chosen[search.first - 1 :]:
        if size >= search.row_bytes:
            break
        file.seek(offset)
        line = file.readline()
        size += len(line)
        page.append([number, orjson.loads(line)])
    return page, matches


def _key(value: Any, *, descending: bool) -> tuple[int, int, Any]:
    """Return a key that puts missing values last in both directions. Texts are sorted by their
    letters, lists and series by their length."""
    if value is None:
        return (-1 if descending else 1, 0, 0)
    if isinstance(value, str):
        return (0, 1, value[:_KEY_CHARACTERS].casefold())
    if isinstance(value, dict):
        value = value.get("values", value)
    return (0, 0, value if isinstance(value, (int, float)) else len(value))


def main() -> None:
    """Search the file named on standard input, and write the page to standard output."""
    order = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (order["memory"], order["memory"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    values = order["search"]
    sort = values.pop("sort")
    columns = tuple(values.pop("columns"))
    search = Search(columns=columns, sort=tuple(sort) if sort else None, **values)
    try:
        with Path(order["path"]).open("rb") as file:
            page: Any = search_rows(file, search)
    except ValueError:
        page = {"damaged": True}
    sys.stdout.buffer.write(orjson.dumps(page))


if __name__ == "__main__":
    main()
