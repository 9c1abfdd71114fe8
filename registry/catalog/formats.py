"""Descriptions and examples of dataset rows, derived from their schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.catalog.columns import media_columns
from registry.catalog.declaration import RowKind
from registry.catalog.features import features_column

# Set by the column types of `columns.py`.
_MEDIA = "x-assay-media"
_ENDINGS = {"image": "png", "audio": "wav", "video": "mp4"}
_FILES = {
    "image": "an image: PNG, JPEG, WebP or GIF",
    "audio": "a recording: WAV, FLAC, OGG or MP3",
    "video": "a video: MP4, WebM, or animated WebP, GIF or PNG",
}


@dataclass(frozen=True, slots=True)
class RowField:
    """One field of a row, with a description of its value."""

    name: str
    value: str


def row_fields(kind: RowKind) -> list[RowField]:
    """Return the fields of a row, in order."""
    schema = kind.row.model_json_schema()
    return [RowField(name, _words(field, schema)) for name, field in schema["properties"].items()]


def is_tabular(kind: RowKind) -> bool:
    """Return whether TSV and CSV files can hold the rows: every field is text, or is the features
    column, into which all other columns go."""
    features = features_column(kind.row)
    properties = kind.row.model_json_schema()["properties"].items()
    return all(
        _is_text(each) or name == features for name, each in properties
    ) and not media_columns(kind.row)


def sample_lines(kind: RowKind) -> str:
    """Return the example rows as JSON lines."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in kind.examples)


def archive_layout(kind: RowKind) -> str:
    """Return the files and metadata of an example archive; empty for rows without media."""
    media = media_columns(kind.row)
    if not media:
        return ""
    kinds = set(media.values())
    ending = _ENDINGS[kinds.pop() if len(kinds) == 1 else "image"]
    required = [name for name, field in kind.row.model_fields.items() if field.is_required()]
    if len(media) == 1 and set(required) == {*media, "label"}:
        return f"first-label/001.{ending}\nfirst-label/002.{ending}\nsecond-label/003.{ending}\n"
    texts = [name for name in required if name not in media]
    columns = ["file_name"] if len(media) == 1 else [f"{name}_file_name" for name in media]
    properties = kind.row.model_json_schema()["properties"]
    if not all(_is_text(properties[name]) for name in texts):
        return _layout_in_json(kind, dict(zip(media, columns, strict=True)), texts)
    numbers = iter(range(1, 100))
    rows = [[f"{next(numbers):03}.{ending}" for _ in media] for _ in range(2)]
    lines = [",".join(columns + texts)]
    lines += [",".join([*files, *(f"the {name}" for name in texts)]) for files in rows]
    listing = "\n".join(["metadata.csv", *(file for files in rows for file in files)])
    return f"{listing}\n\nmetadata.csv holds:\n" + "\n".join(lines) + "\n"


def _layout_in_json(kind: RowKind, columns: Mapping[str, str], others: list[str]) -> str:
    """Return the layout with metadata in JSON Lines, for columns that a table cannot hold."""
    files: list[str] = []
    lines: list[str] = []
    for number, row in enumerate(kind.examples, start=1):
        named = {
            column: f"{number:03}.png" if len(columns) == 1 else f"{name}/{number:03}.png"
            for name, column in columns.items()
        }
        files += named.values()
        lines.append(json.dumps({**named, **{name: row[name] for name in others}}))
    listing = "\n".join(["metadata.jsonl", *sorted(files)])
    return f"{listing}\n\nmetadata.jsonl holds:\n" + "\n".join(lines) + "\n"


def _is_text(field: Mapping[str, Any]) -> bool:
    options = field.get("anyOf", [field])
    return all(each.get("type") in {"string", "null"} for each in options)


def _words(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" in field:
        field = schema["$defs"][field["$ref"].rpartition("/")[2]]
    if options := field.get("anyOf"):
        parts = [_words(each, schema) for each in options if each.get("type") != "null"]
        return " or ".join(parts) + (", optional" if len(parts) < len(options) else "")
    if "enum" in field:
        return f"one of {', '.join(map(str, field['enum']))}"
    if field.get("x-assay-column") == "series":
        return "a series: start, frequency and values, such as the example"
    if field.get("x-assay-column") == "features":
        return "the named values of a record; in CSV, TSV and Parquet every other column is one"
    if kind := field.get(_MEDIA):
        return _FILES[kind]
    match field.get("type"):
        case "array":
            each = _words(field.get("items", {}), schema)
            noun = "objects, each with" if _is_object(field, schema) else "values, each"
            return f"{_bounds(field, 'Items')}{noun} {each}"
        case "object":
            inner = field.get("properties", {}).items()
            return "; ".join(f"{name}: {_words(value, schema)}" for name, value in inner)
        case "string":
            bounds = _bounds(field, "Length")
            return f"text of {bounds}characters" if bounds else "text"
        case "integer" | "number" | "boolean" as kind:
            return {"integer": "a whole number", "number": "a number", "boolean": "true or false"}[
                kind
            ]
    return "a value"


def _is_object(field: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    items = field.get("items", {})
    if "$ref" in items:
        items = schema["$defs"][items["$ref"].rpartition("/")[2]]
    return bool(items.get("type") == "object")


def _bounds(field: Mapping[str, Any], quantity: str) -> str:
    least, most = field.get(f"min{quantity}", 0), field.get(f"max{quantity}")
    if most is not None and least == most:
        return f"{most:,} "
    return f"{least:,} to {most:,} " if most is not None else f"{least:,} or more " if least else ""
