"""Convert TSV, CSV, JSON Lines, Parquet and media archives to canonical JSON Lines and a profile.

Text files are read as a stream, one row at a time; a bounded process first unpacks archives and
Parquet files (`unpacking.py`). Every error names its line, row or entry.
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
from governance.faults import clauses
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
    """Description of a file of canonical JSON Lines. `digest` is the SHA-256 of its bytes.

    `profile` is from `Profile`. `media` describes the rows' media files, which are in the folder
    `files`, named by their SHA-256.
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
    """Read `source`, whose format is the suffix of `name`, and write canonical rows to `target`.

    `columns` maps a field of the row to its column or key; all other columns are left out, or
    become the features of rows with a features column. By default, fields come from the columns of
    the same names. Archives and Parquet files are unpacked in the folder of `target`, at most
    `max_unpacked_bytes`, for `owner`.

    Raises:
        InvalidInput: an unknown suffix, a missing column, a malformed row (with its line).
        TooLarge: more than 2,000,000 rows, or a row of more than 1 MiB.
        QuotaExceeded, Unavailable: too many uploads are being unpacked.
    """
    suffix = Path(name).suffix.lower()
    _check_suffix(name, suffix, row_kind)
    optional = frozenset(
        name for name, field in row_kind.row.model_fields.items() if not field.is_required()
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
        entire = suffix == ".jsonl" and columns is None
        rows = read_table(
            source,
            suffix,
            None if entire else fields,
            optional=optional,
            gather="" if entire else gather,
        )
    with target.open("wb") as output:
        return _write(rows, output, row_kind, attached)


def _check_suffix(name: str, suffix: str, row_kind: RowKind) -> None:
    media = media_columns(row_kind.row)
    accepted = PACKED_SUFFIXES if media else SUFFIXES
    if suffix in accepted:
        return
    because = f": rows of {row_kind.title} name files ({', '.join(media)})" if media else ""
    raise InvalidInput(
        f"{name[:120]} is not a dataset file that can be read{because}.",
        hint=f"Send one of {', '.join(accepted)}.",
        fields={"file": [f"One of {', '.join(accepted)}."]},
    )


def _checked_columns(
    row_kind: RowKind, columns: Mapping[str, str] | None, optional: frozenset[str]
) -> dict[str, str]:
    features = features_column(row_kind.row)
    names = [name for name in row_kind.row.model_fields if name != features]
    if columns is None:
        return {field: field for field in names}
    unknown = sorted(set(columns) - set(names))
    missing = sorted(field for field in names if field not in columns and field not in optional)
    if unknown or missing or not all(isinstance(value, str) for value in columns.values()):
        raise InvalidInput(
            f"The column names do not fit {row_kind.title}: its rows have {', '.join(names)}.",
            hint='Map every field to a column, such as {"text": "review", "label": "rating"}.',
            fields={"columns": [f"A column for each of {', '.join(names)}."]},
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
    """Return the row with all of its fields. Raises InvalidInput, whose message names `place`."""
    try:
        return row_kind.row.model_validate(raw).model_dump()
    except ValidationError as error:
        raise refuse(place, f"{clauses(error)[0]}.") from error


def encoded_row(place: str, row: dict[str, Any]) -> bytes:
    """Return the line of a validated row.

    Raises:
        InvalidInput: the row has a text or number that cannot be stored.
        TooLarge: the line is over 1 MiB.
    """
    try:
        record = canonical_json(row) + b"\n"
    except UnicodeEncodeError as error:
        raise refuse(place, "it contains half of a surrogate pair.") from error
    except ValueError as error:
        raise refuse(place, "it holds a number that is infinite or not a number (NaN).") from error
    # PostgreSQL cannot store a NUL in the labels of a profile.
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
    """Check that all records of one file have the same features with the same kinds.

    Rows without a features column always pass.
    """

    def __init__(self, row: type[BaseModel]) -> None:
        self._column = features_column(row)
        self._kinds: dict[str, Kind | None] = {}

    def check(self, place: str, row: Mapping[str, Any]) -> None:
        """Check one validated row.

        Raises:
            InvalidInput: the row lacks a feature of earlier rows, has an additional one, or has a
                text where they have a number.
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
            earlier = self._kinds[name]
            if kind is None or kind == earlier:
                continue
            if earlier is not None:
                raise refuse(
                    place,
                    f"{name} is {_WORDS[kind]} here, and {_WORDS[earlier]} in the rows before; "
                    "leave missing values empty.",
                )
            self._kinds[name] = kind
