"""Column types of dataset rows beyond plain JSON: files of media, named by their content."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

_SHA256 = r"^[0-9a-f]{64}$"
_KIND = "x-assay-media"
# Schema key of a column type's kind, by which previews and statistics treat the column.
COLUMN = "x-assay-column"

# A media column holds the SHA-256 of a file's bytes; the file is stored under that name.
ImageFile = Annotated[str, Field(pattern=_SHA256, json_schema_extra={_KIND: "image"})]
# A column of recordings: the SHA-256 of each file.
AudioFile = Annotated[str, Field(pattern=_SHA256, json_schema_extra={_KIND: "audio"})]
# A column of videos: the SHA-256 of each file.
VideoFile = Annotated[str, Field(pattern=_SHA256, json_schema_extra={_KIND: "video"})]


def media_columns(row: type[BaseModel]) -> dict[str, str]:
    """Return the media columns of a row schema with their kind: `image`, `audio` or `video`."""
    columns: dict[str, str] = {}
    for name, field in row.model_fields.items():
        for meta in (
            field.json_schema_extra,
            *(getattr(m, "json_schema_extra", None) for m in field.metadata),
        ):
            if isinstance(meta, dict) and _KIND in meta:
                columns[name] = str(meta[_KIND])
    return columns


def media_of(row: type[BaseModel], value: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 in each media column of one row."""
    return {name: value[name] for name in media_columns(row)}


def column_kinds(row: type[BaseModel]) -> dict[str, str]:
    """Return each column's kind: the kind of its media, the kind in its schema, such as `series`,
    or its JSON type, such as `string`. An optional column has the kind of its values."""
    schema = row.model_json_schema()
    return {name: _kind(column, schema) for name, column in schema["properties"].items()}


def _kind(column: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in column:
        column = schema["$defs"][column["$ref"].rpartition("/")[2]]
    options = [each for each in column.get("anyOf", []) if each.get("type") != "null"]
    if len(options) == 1:
        return _kind(options[0], schema)
    return str(column.get(_KIND) or column.get(COLUMN) or column.get("type", "value"))
