"""Readers of TSV, CSV and JSON Lines, one row at a time; every error names its line."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from governance.errors import InvalidInput, TooLarge
from registry.catalog.features import MAX_FEATURES, cell_value

MAX_ROW_BYTES = 1024 * 1024
DELIMITERS = {".csv": ",", ".tsv": "\t"}
csv.field_size_limit(MAX_ROW_BYTES)

# A row with its place, such as `Line 3`.
Placed = tuple[str, Any]


def refuse(place: str, why: str) -> InvalidInput:
    """Return the error for a row that is not acceptable."""
    sentence = f"{place}: {why}"
    return InvalidInput(sentence, code="invalid_row", fields={"file": [sentence]})


def read_table(
    source: Path,
    suffix: str,
    fields: Mapping[str, str] | None,
    *,
    optional: frozenset[str] = frozenset(),
    gather: str = "",
    place: str = "Line",
) -> Iterator[Placed]:
    """Yield the rows of a text file with their places.

    `fields` maps the fields of a row to columns or keys; without it, JSON rows stay unchanged.
    `optional` fields may be missing. All remaining columns go into the field `gather`, as features.
    `place` is the prefix of each place.

    Raises:
        InvalidInput, TooLarge: a line cannot be read.
    """
    number = 0
    # `newline=""` preserves the newlines in quoted cells.
    with source.open(encoding="utf-8-sig", newline="") as text:
        if suffix == ".jsonl":
            rows = _json_rows(text, fields, optional, place, gather)
        else:
            rows = _table_rows(text, DELIMITERS[suffix], fields or {}, optional, place, gather)
        try:
            for number, row in rows:
                yield f"{place} {number}", row
        except UnicodeDecodeError as error:
            raise refuse(
                f"{place} {number + 1}", "this line, or one shortly after it, is not UTF-8 text."
            ) from error


def _table_rows(
    text: IO[str],
    delimiter: str,
    fields: Mapping[str, str],
    optional: frozenset[str],
    place: str,
    gather: str,
) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    line = 1
    try:
        header = next(reader, [])
        if repeated := [name for name, count in Counter(header).items() if count > 1]:
            raise refuse(f"{place} 1", f"the column {repeated[0][:80]!r} occurs twice.")
        absent = [
            column
            for field, column in fields.items()
            if column not in header and field not in optional
        ]
        if absent:
            column_names = ", ".join(name or "(no name)" for name in header[:40])
            raise refuse(
                f"{place} 1",
                f"there is no column {absent[0][:80]!r}; there are {column_names[:500]}.",
            )
        places = {
            field: header.index(column) for field, column in fields.items() if column in header
        }
        features = _feature_places(header, set(places.values()), place) if gather else {}
        line = reader.line_num + 1
        for values in reader:
            if values:
                if len(values) != len(header):
                    raise refuse(
                        f"{place} {line}",
                        f"it has {len(values)} of the {len(header)} columns."
                        if len(values) < len(header)
                        else f"it has {len(values)} columns; the header has {len(header)}.",
                    )
                row: dict[str, Any] = {field: values[at] for field, at in places.items()}
                if gather:
                    row[gather] = {name: cell_value(values[at]) for name, at in features.items()}
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise refuse(f"{place} {line}", f"it cannot be read as a table: {error}.") from error


def _feature_places(header: list[str], used: set[int], place: str) -> dict[str, int]:
    positions = {name: at for at, name in enumerate(header) if at not in used}
    if len(positions) > MAX_FEATURES:
        raise refuse(
            f"{place} 1",
            f"there are {len(positions):,} features; at most {MAX_FEATURES} are allowed.",
        )
    if "" in positions:
        raise refuse(
            f"{place} 1",
            f"column {positions[''] + 1} has no name; name it, or leave the column out.",
        )
    return positions


def _json_rows(
    text: IO[str],
    fields: Mapping[str, str] | None,
    optional: frozenset[str],
    place: str,
    gather: str,
) -> Iterator[tuple[int, Any]]:
    line = 0
    while content := text.readline(MAX_ROW_BYTES + 1):
        line += 1
        where = f"{place} {line}"
        if len(content) > MAX_ROW_BYTES:
            raise TooLarge(f"{where} is longer than {MAX_ROW_BYTES} characters.")
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise refuse(where, f"it is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise refuse(where, "it is not a JSON object.")
        if fields is not None:
            absent = [
                key for field, key in fields.items() if key not in row and field not in optional
            ]
            if absent:
                raise refuse(where, f"it has no key {absent[0][:80]!r}.")
            selected = {field: row[key] for field, key in fields.items() if key in row}
            if gather and gather not in row:
                used = set(fields.values())
                selected[gather] = {key: value for key, value in row.items() if key not in used}
            elif gather:
                selected[gather] = row[gather]
            row = selected
        yield line, row
