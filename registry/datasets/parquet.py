"""Unpack a Parquet file into rows as JSON Lines, and binary columns into checked media files.

Runs in the bounded process of `unpacking.py`; knows no Django. Media columns have the type of
Hugging Face's `datasets` (a struct of `bytes` and `path`) or are plain binary.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from governance.errors import InvalidInput, TooLarge
from registry.datasets.media_files import MediaFolder

MAX_COLUMNS = 1000
MAX_METADATA_BYTES = 16 * 1024**2
BATCH_ROWS = 64
MAX_ROWS = 2_000_000


def unpack_parquet(
    source: Path,
    folder: MediaFolder,
    max_bytes: int,
    *,
    columns: list[str],
    optional: list[str],
    media: Mapping[str, str],
    gather: str = "",
) -> None:
    """Write `rows.jsonl` with these columns of `source`; a file in a `media` column becomes its
    SHA-256.

    With `gather`, the name of a features column, all columns are written if it is missing.

    Raises:
        InvalidInput: the file cannot be read, or a column is missing or of an unsupported type.
        TooLarge: more than 2,000,000 rows, or more than `max_bytes` of content.
    """
    import pyarrow
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(
            source,
            thrift_string_size_limit=MAX_METADATA_BYTES,
            thrift_container_size_limit=MAX_METADATA_BYTES,
        )
        with file:
            present = file.schema_arrow.names
            if file.metadata.num_rows > MAX_ROWS:
                raise TooLarge(f"A dataset has at most {MAX_ROWS:,} rows.")
            if len(present) > MAX_COLUMNS:
                raise InvalidInput(f"The file has more than {MAX_COLUMNS} columns.")
            if repeated := [name for name, count in Counter(present).items() if count > 1]:
                raise InvalidInput(
                    f"Two columns have the name {repeated[0][:80]!r}.",
                    hint="Rename one of them, or leave it out.",
                )
            if absent := [name for name in columns if name not in present and name not in optional]:
                raise InvalidInput(
                    f"There is no column {absent[0][:80]!r}; there are "
                    f"{', '.join(present[:40])[:500]}.",
                    hint='Map fields to columns, such as {"text": "review"}.',
                )
            whole = bool(gather) and gather not in present
            selected = (
                present if whole else [name for name in (*columns, gather) if name in present]
            )
            for name in selected:
                _check_type(name, file.schema_arrow.field(name).type, name in media)
            names = _class_names(file.schema_arrow.metadata)
            remaining, row = max_bytes, 0
            with (folder.root / "rows.jsonl").open("w", encoding="utf-8") as output:
                batches = file.iter_batches(BATCH_ROWS, columns=selected, use_threads=False)
                for batch in batches:
                    for values in batch.to_pylist():
                        row += 1
                        line, size = _row(values, row, folder, media, names, keep_missing=whole)
                        remaining -= size
                        if remaining < 0:
                            raise TooLarge(
                                f"Row {row:,}: the rows so far have more than {max_bytes:,} bytes.",
                                hint="Split the data into several datasets.",
                            )
                        print(line, file=output)
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        raise InvalidInput(
            f"The file cannot be read as Parquet: {str(error).splitlines()[0][:200]}",
            hint="Write it again, such as with pandas or Hugging Face's datasets.",
        ) from error


def _check_type(name: str, kind: Any, is_media: bool) -> None:
    from pyarrow import types

    binary = types.is_binary(kind) or types.is_large_binary(kind)
    if is_media:
        fields = (
            {kind.field(i).name for i in range(kind.num_fields)} if types.is_struct(kind) else set()
        )
        if not binary and "bytes" not in fields:
            raise InvalidInput(
                f"The column {name[:80]!r} has the type {str(kind)[:80]}; files are expected.",
                hint="Write the column as binary, or as a struct of bytes and path.",
            )
    elif not _is_plain(kind):
        raise InvalidInput(
            f"The column {name[:80]!r} has the type {str(kind)[:80]}, which is not supported.",
            hint="Write text, numbers, truth values, and lists and structs of them.",
        )


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    if types.is_struct(kind):
        return all(_is_plain(kind.field(index).type) for index in range(kind.num_fields))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_plain(kind.value_type)
    return any(
        check(kind)
        for check in (
            types.is_string,
            types.is_large_string,
            types.is_integer,
            types.is_floating,
            types.is_boolean,
            types.is_null,
        )
    )


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Return the names behind the numbers of Hugging Face's ClassLabel columns."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: [str(each) for each in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _row(
    values: dict[str, Any],
    row: int,
    folder: MediaFolder,
    media: Mapping[str, str],
    names: Mapping[str, list[str]],
    *,
    keep_missing: bool,
) -> tuple[str, int]:
    size = 0
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if name in media:
            content = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise InvalidInput(
                    f"Row {row:,}: {name[:80]} holds no file.",
                    hint="Embed the files; a path alone is not enough.",
                )
            size += len(content)
            part = folder.root / "entry.part"
            part.write_bytes(content)
            converted[name] = folder.take(part, what=f"Row {row:,}: {name[:80]}").sha256
        elif name in names and isinstance(value, int) and 0 <= value < len(names[name]):
            converted[name] = names[name][value]
        elif value is not None or keep_missing:
            converted[name] = value
    line = json.dumps(converted)
    return line, size + len(line)
