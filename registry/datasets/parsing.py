"""Rows out of TSV, CSV and JSON lines; canonical JSON lines and a profile out of rows.

Pure. A file is read as a stream, one row at a time; every error names the line it was met on.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from governance.errors import InvalidInput, TooLarge
from registry.canonical import canonical_json
from registry.catalog.declaration import Task
from registry.datasets.personal import PersonalData

MAX_ROWS = 2_000_000
MAX_ROW_BYTES = 1024 * 1024
MAX_LABELS = 1000
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".csv", ".jsonl", ".tsv")
csv.field_size_limit(MAX_ROW_BYTES)


@dataclass(frozen=True, slots=True)
class ParsedDataset:
    """What canonical JSON lines hold. `digest` is the SHA-256 of the file's bytes.

    `profile`: `duplicates` is the number of rows whose input stood before; `characters` gives min,
    mean and max of an input's length; `labels` counts rows by label, where the task has labels;
    `personal` says in how many rows there are signs of personal data, as in `personal.py`.
    """

    digest: str
    rows: int
    size_bytes: int
    profile: dict[str, Any]


def parse_dataset(
    *, source: Path, name: str, target: Path, task: Task, columns: Mapping[str, str] | None
) -> ParsedDataset:
    """Read `source`, whose kind the suffix of `name` tells, and write canonical rows to `target`.

    `columns` maps a field of the task's row to the column, or key, that it is taken from; what it
    does not name is left out. Without it fields are taken from the columns of the same names.

    Raises:
        InvalidInput: an unknown suffix, a missing column, a malformed row (with its line).
        TooLarge: more than 2,000,000 rows, or a row of more than 1 MiB.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(
            f"{name[:120]} is not a dataset file that can be read.",
            hint=f"Send one of {', '.join(SUFFIXES)}.",
            fields={"file": [f"One of {', '.join(SUFFIXES)}."]},
        )
    fields = _checked_columns(task, columns)
    # Newlines stay as they are, so that a quoted one survives.
    with source.open(encoding="utf-8-sig", newline="") as text, target.open("wb") as output:
        rows = _json_rows(text, columns and fields) if suffix == ".jsonl" else None
        if rows is None:
            rows = _table_rows(text, DELIMITERS[suffix], fields)
        return _write(_decoded(rows), output, task)


def _checked_columns(task: Task, columns: Mapping[str, str] | None) -> dict[str, str]:
    known = list(task.row.model_fields)
    if columns is None:
        return {field: field for field in known}
    unknown = sorted(set(columns) - set(known))
    missing = sorted(field for field in known if field not in columns)
    if unknown or missing or not all(isinstance(value, str) for value in columns.values()):
        raise InvalidInput(
            f"The column names do not fit {task.name}: its rows have {', '.join(known)}.",
            hint='Map every field to a column, such as {"text": "review", "label": "rating"}.',
            fields={"columns": [f"A column for each of {', '.join(known)}."]},
        )
    return dict(columns)


def _refuse(line: int, why: str) -> InvalidInput:
    return InvalidInput(
        f"Line {line}: {why}", code="invalid_row", fields={"file": [f"Line {line}: {why}"]}
    )


def _decoded(rows: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    line = 0
    try:
        for line, row in rows:
            yield line, row
    except UnicodeDecodeError as error:
        raise _refuse(line + 1, "it is not UTF-8 text, or a line close after it is not.") from error


def _table_rows(
    text: IO[str], delimiter: str, fields: Mapping[str, str]
) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    line = 1
    try:
        header = next(reader, [])
        if repeated := [name for name, count in Counter(header).items() if count > 1]:
            raise _refuse(1, f"the column {repeated[0][:80]!r} stands there twice.")
        if absent := [column for column in fields.values() if column not in header]:
            there = ", ".join(name or "(no name)" for name in header[:40])
            raise _refuse(1, f"there is no column {absent[0][:80]!r}; there are {there[:500]}.")
        places = {field: header.index(column) for field, column in fields.items()}
        line = reader.line_num + 1
        for values in reader:
            if values:
                if len(values) != len(header):
                    raise _refuse(
                        line, f"it has {len(values)} columns; the header has {len(header)}."
                    )
                yield line, {field: values[place] for field, place in places.items()}
            line = reader.line_num + 1
    except csv.Error as error:
        raise _refuse(line, f"it cannot be read as a table: {error}.") from error


def _json_rows(text: IO[str], fields: Mapping[str, str] | None) -> Iterator[tuple[int, Any]]:
    line = 0
    while content := text.readline(MAX_ROW_BYTES + 1):
        line += 1
        if len(content) > MAX_ROW_BYTES:
            raise TooLarge(f"Line {line} is longer than {MAX_ROW_BYTES} characters.")
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _refuse(line, f"it is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise _refuse(line, "it is not a JSON object.")
        if fields is not None:
            if absent := [key for key in fields.values() if key not in row]:
                raise _refuse(line, f"it has no key {absent[0][:80]!r}.")
            row = {field: row[key] for field, key in fields.items()}
        yield line, row


def _write(rows: Iterator[tuple[int, Any]], output: IO[bytes], task: Task) -> ParsedDataset:
    digest, size, count = hashlib.sha256(), 0, 0
    seen: set[bytes] = set()
    lengths: list[int] = []
    labels: Counter[str] = Counter()
    personal = PersonalData()
    for line, raw in rows:
        count += 1
        if count > MAX_ROWS:
            raise TooLarge(f"Line {line}: a dataset has at most {MAX_ROWS} rows.")
        row = _validated(line, raw, task)
        record = _encoded(line, row)
        digest.update(record)
        size += len(record)
        output.write(record)
        personal.look(row)
        given = task.row_input(row)
        seen.add(input_fingerprint(given))
        lengths.append(len(given))
        if "label" in row:
            labels[row["label"]] += 1
            if len(labels) > MAX_LABELS:
                raise _refuse(line, f"there are more than {MAX_LABELS} different labels.")
    if not count:
        raise InvalidInput("The file holds no row.", fields={"file": ["At least one row."]})
    profile: dict[str, Any] = {
        "duplicates": count - len(seen),
        "characters": {
            "min": min(lengths),
            "mean": round(sum(lengths) / count, 1),
            "max": max(lengths),
        },
    }
    if labels:
        profile["labels"] = dict(labels.most_common())
    profile["personal"] = personal.profile()
    return ParsedDataset(digest=digest.hexdigest(), rows=count, size_bytes=size, profile=profile)


def _validated(line: int, raw: Any, task: Task) -> dict[str, Any]:
    try:
        return task.row.model_validate(raw).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        raise _refuse(line, f"{where}: {first['msg']}." if where else f"{first['msg']}.") from error


def _encoded(line: int, row: dict[str, Any]) -> bytes:
    try:
        record = canonical_json(row) + b"\n"
    except UnicodeEncodeError as error:
        raise _refuse(line, "it holds half of a surrogate pair, which is no character.") from error
    # A NUL is no text, and PostgreSQL keeps none in the labels of a profile.
    if "\0" in "".join(map(str, row.values())):
        raise _refuse(line, "it holds a NUL character.")
    if len(record) > MAX_ROW_BYTES:
        raise TooLarge(f"Line {line}: a row has at most {MAX_ROW_BYTES} bytes.")
    return record


def input_fingerprint(text: str) -> bytes:
    """16 bytes that are equal for texts that differ in letter case and white space alone."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode("utf-8", "replace")).digest()[
        :16
    ]


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of canonical JSON lines."""
    with file.open("rb") as lines:
        for line in lines:
            yield json.loads(line)
