"""Rows of an upload with media files: a zip archive or a Parquet file, unpacked and checked.

Media columns refer only to files of the same upload. A SHA-256 in a row is never accepted, because
it could name another department's file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from governance.errors import InvalidInput
from registry.catalog.columns import media_columns
from registry.catalog.declaration import RowKind
from registry.catalog.features import features_column
from registry.catalog.regions import region_columns
from registry.datasets.archives import METADATA
from registry.datasets.media_files import MediaRecord
from registry.datasets.tables import Placed, read_table, refuse
from registry.datasets.unpacking import unpack
from registry.media.limits import MediaLimits


@dataclass(frozen=True, slots=True)
class Attached:
    """An unpacked upload. `folder` contains the files, each named by its SHA-256."""

    rows: Iterator[Placed]
    records: dict[str, MediaRecord]
    folder: Path


def default_columns(row_kind: RowKind, suffix: str) -> dict[str, str]:
    """Return the default column of each field.

    In an archive a media field is filled from `file_name`, or from `<field>_file_name` if there are
    several, as in Hugging Face's folders.
    """
    features = features_column(row_kind.row)
    columns = {field: field for field in row_kind.row.model_fields if field != features}
    if suffix == ".zip":
        media = media_columns(row_kind.row)
        for name in media:
            columns[name] = "file_name" if len(media) == 1 else f"{name}_file_name"
    return columns


def read_attached(
    *,
    source: Path,
    suffix: str,
    target: Path,
    row_kind: RowKind,
    fields: Mapping[str, str],
    optional: frozenset[str],
    limits: MediaLimits,
    max_bytes: int,
    owner: str,
) -> Attached:
    """Unpack `source` into the folder `target`, for `owner`, and return its rows.

    Raises:
        InvalidInput, TooLarge: the file cannot be read; the message names the entry or row.
        QuotaExceeded, Unavailable: too many uploads are being read.
    """
    media = media_columns(row_kind.row)
    if suffix == ".zip" and not media:
        raise InvalidInput(
            f"Rows of {row_kind.title} have no files; a zip archive is not accepted.",
            hint="Send JSON lines, TSV, CSV or Parquet.",
            fields={"file": ["One of .csv, .jsonl, .parquet, .tsv."]},
        )
    target.mkdir()
    gather = features_column(row_kind.row)
    unpack(
        source=source,
        suffix=suffix,
        target=target,
        limits=limits,
        max_bytes=max_bytes,
        columns=sorted(set(fields.values())),
        optional=[fields[name] for name in optional if name in fields],
        media={fields[name]: kind for name, kind in media.items() if name in fields},
        gather=gather,
        masks=any(each.kind == "mask" for each in region_columns(row_kind.row).values()),
        owner=owner,
    )
    with (target / "media.tsv").open(encoding="utf-8") as listing:
        # The reader process is not trusted: an invalid SHA-256 could name a path elsewhere.
        parsed_lines = map(MediaRecord.from_line, listing)
        records = {record.media.sha256: record for record in parsed_lines}
    rows = (
        _archive_rows(target, row_kind, fields, optional)
        if suffix == ".zip"
        else read_table(
            target / "rows.jsonl", ".jsonl", fields, optional=optional, gather=gather, place="Row"
        )
    )
    return Attached(_check_kinds(rows, media, records), records, target / "files")


def _check_kinds(
    rows: Iterator[Placed], media: Mapping[str, str], records: Mapping[str, MediaRecord]
) -> Iterator[Placed]:
    for place, row in rows:
        for name, kind in media.items():
            if name in row and records[row[name]].media.kind != kind:
                actual = records[row[name]].media.content_type
                raise refuse(place, f"{name} has a file of type {actual}; {kind} is expected.")
        yield place, row


def _archive_rows(
    folder: Path, row_kind: RowKind, fields: Mapping[str, str], optional: frozenset[str]
) -> Iterator[Placed]:
    with (folder / "entries.jsonl").open(encoding="utf-8") as listing:
        files = {entry["name"]: entry["sha256"] for entry in map(json.loads, listing)}
    media = media_columns(row_kind.row)
    for name in METADATA:
        if (folder / name).exists():
            rows = read_table(
                folder / name,
                Path(name).suffix,
                fields,
                optional=optional,
                place=f"{name}, line",
            )
            return _with_files(rows, media, files, name)
    return _labeled_rows(files, row_kind, media, optional)


def _with_files(
    rows: Iterator[Placed], media: Mapping[str, str], files: Mapping[str, str], metadata: str
) -> Iterator[Placed]:
    unused = set(files)
    for place, row in rows:
        for name in media:
            if name not in row:
                continue
            file = row[name]
            sha256 = files.get(file.removeprefix("./")) if isinstance(file, str) else None
            if sha256 is None:
                raise refuse(place, f"there is no file {str(file)[:120]!r} in the archive.")
            unused.discard(file.removeprefix("./"))
            row[name] = sha256
        yield place, row
    if unused:
        more = f" and {len(unused) - 1:,} more are" if len(unused) > 1 else " is"
        raise InvalidInput(
            f"Archive entry {min(unused)[:120]!r}{more} not named in {metadata}.",
            hint="Add a line for each file, or leave the file out.",
            fields={"file": [f"{min(unused)[:120]!r} has no row."]},
        )


def _labeled_rows(
    files: Mapping[str, str], row_kind: RowKind, media: Mapping[str, str], optional: frozenset[str]
) -> Iterator[Placed]:
    """Yield a row for each `<label>/<file>`."""
    fields = row_kind.row.model_fields
    needed = [name for name in fields if name not in optional and name not in {*media, "label"}]
    if len(media) != 1 or "label" not in fields or needed:
        raise InvalidInput(
            f"The archive has no metadata.jsonl or metadata.csv; rows of {row_kind.title} need "
            f"{', '.join(name for name in fields if name not in media) or 'one'}.",
            hint="Add a metadata file with a column file_name and one for each field.",
            fields={"file": ["A metadata file."]},
        )
    (column,) = media
    for name, sha256 in sorted(files.items()):
        parts = name.split("/")
        if len(parts) != 2:
            raise refuse(
                name[:120],
                "it is not in the folder of a label, as <label>/<file>, and there is no metadata "
                "file.",
            )
        yield name[:120], {column: sha256, "label": parts[0]}
