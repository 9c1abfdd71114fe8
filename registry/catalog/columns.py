"""Column types of dataset rows beyond plain JSON: files of media, named by their content."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

_SHA256 = r"^[0-9a-f]{64}$"
_KIND = "x-assay-media"

# A media column holds the SHA-256 of a file's bytes; the file is stored under that name.
ImageFile = Annotated[str, Field(pattern=_SHA256, json_schema_extra={_KIND: "image"})]
AudioFile = Annotated[str, Field(pattern=_SHA256, json_schema_extra={_KIND: "audio"})]


def media_columns(row: type[BaseModel]) -> dict[str, str]:
    """Return the media columns of a row schema with their kind, `image` or `audio`."""
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
