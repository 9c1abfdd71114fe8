"""The rows that data consists of, in words and by example; drawn from their schema."""

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
    """One field of a row, and its value in words."""

    name: str
    value: str


def row_fields(kind: RowKind) -> list[RowField]:
    """Return the fields of a row, in order."""
    schema = kind.row.model_json_schema()
    return [RowField(name, _words(given, schema)) for name, given in schema["properties"].items()]


def is_tabular(kind: RowKind) -> bool:
    """Return whether TSV and CSV files can hold the rows: every field is text, or the features
    that all other columns make up."""
    gathered = features_column(kind.row)
    given = kind.row.model_json_schema()["properties"].items()
    return all(_is_text(each) or name == gathered for name, each in given) and not media_columns(
        kind.row
    )


def sample_lines(kind: RowKind) -> str:
    """Return the example rows as JSON lines."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in kind.examples)


def archive_layout(kind: RowKind) -> str:
    """Return the files of an example archive, and its metadata file; empty where rows hold none."""
    media = media_columns(kind.row)
    if not media:
        return ""
    found = set(media.values())
    ending = _ENDINGS[found.pop() if len(found) == 1 else "image"]
    required = [name for name, field in kind.row.model_fields.items() if field.is_required()]
    if len(media) == 1 and set(required) == {*media, "label"}:
        return f"first-label/001.{ending}\nfirst-label/002.{ending}\nsecond-label/003.{ending}\n"
    texts = [name for name in required if name not in media]
    columns = ["file_name"] if len(media) == 1 else [f"{name}_file_name" for name in media]
    given = kind.row.model_json_schema()["properties"]
    if not all(_is_text(given[name]) for name in texts):
        return _layout_in_json(kind, dict(zip(media, columns, strict=True)), texts)
    numbers = iter(range(1, 100))
    rows = [[f"{next(numbers):03}.{ending}" for _ in media] for _ in range(2)]
    lines = [",".join(columns + texts)]
    lines += [",".join([*files, *(f"the {name}" for name in texts)]) for files in rows]
    listing = "\n".join(["metadata.csv", *(file for files in rows for file in files)])
    return f"{listing}\n\nmetadata.csv holds:\n" + "\n".join(lines) + "\n"


def _layout_in_json(kind: RowKind, columns: Mapping[str, str], others: list[str]) -> str:
    """The same with a metadata file in JSON lines, for columns that a table cannot hold."""
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


def _is_text(given: Mapping[str, Any]) -> bool:
    options = given.get("anyOf", [given])
    return all(each.get("type") in {"string", "null"} for each in options)


def _words(given: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" in given:
        given = schema["$defs"][given["$ref"].rpartition("/")[2]]
    if options := given.get("anyOf"):
        known = [_words(each, schema) for each in options if each.get("type") != "null"]
        return " or ".join(known) + (", optional" if len(known) < len(options) else "")
    if "enum" in given:
        return f"one of {', '.join(map(str, given['enum']))}"
    if given.get("x-assay-column") == "series":
        return "a series: start, frequency and values, such as the example"
    if given.get("x-assay-column") == "features":
        return "the named values of a record; in CSV, TSV and Parquet every other column is one"
    if kind := given.get(_MEDIA):
        return _FILES[kind]
    match given.get("type"):
        case "array":
            each = _words(given.get("items", {}), schema)
            noun = "objects, each with" if _is_object(given, schema) else "values, each"
            return f"{_bounds(given, 'Items')}{noun} {each}"
        case "object":
            inner = given.get("properties", {}).items()
            return "; ".join(f"{name}: {_words(value, schema)}" for name, value in inner)
        case "string":
            bounds = _bounds(given, "Length")
            return f"text of {bounds}characters" if bounds else "text"
        case "integer" | "number" | "boolean" as kind:
            return {"integer": "a whole number", "number": "a number", "boolean": "true or false"}[
                kind
            ]
    return "a value"


def _is_object(given: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    items = given.get("items", {})
    if "$ref" in items:
        items = schema["$defs"][items["$ref"].rpartition("/")[2]]
    return bool(items.get("type") == "object")


def _bounds(given: Mapping[str, Any], what: str) -> str:
    least, most = given.get(f"min{what}", 0), given.get(f"max{what}")
    if most is not None and least == most:
        return f"{most:,} "
    return f"{least:,} to {most:,} " if most is not None else f"{least:,} or more " if least else ""
