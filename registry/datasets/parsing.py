"""Rows out of TSV, CSV, JSON lines, Parquet and archives of media; canonical JSON lines and a
profile out of rows.

Text files are read as a stream, one row at a time; archives and Parquet files are unpacked in a
bounded process first (`unpacking.py`). Every error names the line, row or entry it was met on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

from pydantic import BaseModel, ValidationError

from governance.errors import InvalidInput, TooLarge
from registry.canonical import canonical_json
from registry.catalog.columns import media_columns
from registry.catalog.declaration import RowKind
from registry.catalog.features import Kind, features_column, kind_of
from registry.catalog.regions import region_columns
from registry.datasets.attached import Attached, default_columns, read_attached
from registry.datasets.media_files import MediaRecord
from registry.datasets.profiling import Profile
from registry.datasets.regions import check_regions
from registry.datasets.tables import DELIMITERS, MAX_ROW_BYTES, Placed, read_table, refuse
from registry.media.limits import MediaLimits

MAX_ROWS = 2_000_000
MAX_UNPACKED_BYTES = 1024**3
TEXT_SUFFIXES = (".jsonl", *DELIMITERS)
PACKED_SUFFIXES = (".parquet", ".zip")
SUFFIXES = tuple(sorted((*TEXT_SUFFIXES, *PACKED_SUFFIXES)))
_WORDS = {"number": "a number", "category": "a text"}


@dataclass(frozen=True, slots=True)
class ParsedDataset:
    """The content of canonical JSON lines. `digest` is the SHA-256 of the file's bytes.

    `profile` is that of `Profile`. `media` describes the files that the rows name, which lie in
    `files` under their SHA-256.
    """

    digest: str
    rows: int
    size_bytes: int
    profile: dict[str, Any]
    media: dict[str, MediaRecord] = field(default_factory=dict)
    files: Path | None = None


def parse_dataset(
    *,
    source: Path,
    name: str,
    target: Path,
    row_kind: RowKind,
    columns: Mapping[str, str] | None,
    limits: MediaLimits | None = None,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
    owner: str = "",
) -> ParsedDataset:
    """Read `source`, whose kind the suffix of `name` tells, and write canonical rows to `target`.

    `columns` maps a field of the row to the column, or key, that it is taken from; columns
    that it does not name are left out, or are the features of rows that have any. Without it fields
    are taken from the columns of the same names. Archives and Parquet files are unpacked in the
    folder of `target`, at most `max_unpacked_bytes`, for `owner`.

    Raises:
        InvalidInput: an unknown suffix, a missing column, a malformed row (with its line).
        TooLarge: more than 2,000,000 rows, or a row of more than 1 MiB.
        QuotaExceeded, Unavailable: too many uploads are being unpacked.
    """
    suffix = Path(name).suffix.lower()
    _check_suffix(name, suffix, row_kind)
    optional = frozenset(
        name for name, given in row_kind.row.model_fields.items() if not given.is_required()
    )
    attached = None
    gather = features_column(row_kind.row)
    if suffix in PACKED_SUFFIXES:
        attached = read_attached(
            source=source,
            suffix=suffix,
            target=target.parent / "unpacked",
            row_kind=row_kind,
            fields={
                **default_columns(row_kind, suffix),
                **(_checked_columns(row_kind, columns, optional) if columns is not None else {}),
            },
            optional=optional,
            limits=limits or MediaLimits(),
            max_bytes=max_unpacked_bytes,
            owner=owner,
        )
        rows = attached.rows
    else:
        fields = _checked_columns(row_kind, columns, optional)
        whole = suffix == ".jsonl" and columns is None
        rows = read_table(
            source,
            suffix,
            None if whole else fields,
            optional=optional,
            gather="" if whole else gather,
        )
    with target.open("wb") as output:
        return _write(rows, output, row_kind, attached)


def _check_suffix(name: str, suffix: str, row_kind: RowKind) -> None:
    media = media_columns(row_kind.row)
    taken = PACKED_SUFFIXES if media else SUFFIXES
    if suffix in taken:
        return
    because = f": rows of {row_kind.title} name files ({', '.join(media)})" if media else ""
    raise InvalidInput(
        f"{name[:120]} is not a dataset file that can be read{because}.",
        hint=f"Send one of {', '.join(taken)}.",
        fields={"file": [f"One of {', '.join(taken)}."]},
    )


def _checked_columns(
    row_kind: RowKind, columns: Mapping[str, str] | None, optional: frozenset[str]
) -> dict[str, str]:
    gathered = features_column(row_kind.row)
    known = [name for name in row_kind.row.model_fields if name != gathered]
    if columns is None:
        return {field: field for field in known}
    unknown = sorted(set(columns) - set(known))
    missing = sorted(field for field in known if field not in columns and field not in optional)
    if unknown or missing or not all(isinstance(value, str) for value in columns.values()):
        raise InvalidInput(
            f"The column names do not fit {row_kind.title}: its rows have {', '.join(known)}.",
            hint='Map every field to a column, such as {"text": "review", "label": "rating"}.',
            fields={"columns": [f"A column for each of {', '.join(known)}."]},
        )
    return dict(columns)


def _write(
    rows: Iterator[Placed], output: IO[bytes], row_kind: RowKind, attached: Attached | None
) -> ParsedDataset:
    digest, size, count = hashlib.sha256(), 0, 0
    records = attached.records if attached else {}
    media = media_columns(row_kind.row)
    regions = region_columns(row_kind.row)
    named: dict[str, MediaRecord] = {}
    profile = Profile(row_kind, records)
    features = FeatureChecks(row_kind.row)
    for place, raw in rows:
        count += 1
        if count > MAX_ROWS:
            raise TooLarge(f"{place}: a dataset has at most {MAX_ROWS} rows.")
        row = validated_row(place, raw, row_kind)
        check_regions(place, row, regions, records)
        features.check(place, row)
        record = encoded_row(place, row)
        digest.update(record)
        size += len(record)
        output.write(record)
        profile.look(place, row)
        named |= {row[name]: records[row[name]] for name in media if row.get(name)}
    if not count:
        raise InvalidInput("The file holds no row.", fields={"file": ["At least one row."]})
    return ParsedDataset(
        digest=digest.hexdigest(),
        rows=count,
        size_bytes=size,
        profile=profile.to_json(),
        media=named,
        files=attached.folder if attached else None,
    )


def validated_row(place: str, raw: Any, row_kind: RowKind) -> dict[str, Any]:
    """Return the row with all of its fields. Raises InvalidInput, which names `place`."""
    try:
        return row_kind.row.model_validate(raw).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        raise refuse(place, f"{where}: {first['msg']}." if where else f"{first['msg']}.") from error


def encoded_row(place: str, row: dict[str, Any]) -> bytes:
    """Return the line that holds a validated row.

    Raises:
        InvalidInput: a text or number that cannot be stored.
        TooLarge: over 1 MiB.
    """
    try:
        record = canonical_json(row) + b"\n"
    except UnicodeEncodeError as error:
        raise refuse(place, "it holds half of a surrogate pair, which is no character.") from error
    except ValueError as error:
        raise refuse(place, "it holds a number that is infinite or not a number (NaN).") from error
    # PostgreSQL keeps no NUL in the labels of a profile.
    if "\0" in "".join(map(str, row.values())):
        raise refuse(place, "it holds a NUL character.")
    if len(record) > MAX_ROW_BYTES:
        raise TooLarge(f"{place}: a row has at most {MAX_ROW_BYTES} bytes.")
    return record


def read_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yield the rows of canonical JSON lines, then close the file."""
    with file as lines:
        for line in lines:
            yield json.loads(line)


class FeatureChecks:
    """Checks that all records of one file have the same features, each of one kind.

    Rows without a column of features always pass.
    """

    def __init__(self, row: type[BaseModel]) -> None:
        self._column = features_column(row)
        self._kinds: dict[str, Kind | None] = {}

    def check(self, place: str, row: Mapping[str, Any]) -> None:
        """Take one validated row.

        Raises:
            InvalidInput: it lacks a feature of the rows before, has another one, or has a text
                where those have a number.
        """
        if not self._column:
            return
        features = row[self._column]
        if not self._kinds:
            self._kinds = dict.fromkeys(features)
        if features.keys() != self._kinds.keys():
            name = min(features.keys() ^ self._kinds.keys())
            raise refuse(
                place,
                f"it has the feature {name!r}, which the first row lacks."
                if name in features
                else f"it lacks the feature {name!r} of the first row; a missing value is null.",
            )
        for name, value in features.items():
            kind = kind_of(value)
            known = self._kinds[name]
            if kind is None or kind == known:
                continue
            if known is not None:
                raise refuse(
                    place,
                    f"{name} is {_WORDS[kind]} here, and {_WORDS[known]} in the rows before; "
                    "leave missing values empty.",
                )
            self._kinds[name] = kind
