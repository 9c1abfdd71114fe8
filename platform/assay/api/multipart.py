"""Types for fields of forms with files."""

from __future__ import annotations

from typing import Annotated, Any

from django.core.files.uploadedfile import UploadedFile
from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from rest_framework.exceptions import ParseError

from assay.api.parsers import parse_json
from governance.bounds import FILENAME_MAX

TEXT_MAX = 4_000


def _file(value: Any) -> Any:
    if not isinstance(value, UploadedFile):
        raise ValueError("not a file")
    if not value.name or len(value.name) > FILENAME_MAX:
        raise ValueError(f"the name of the file must have 1 to {FILENAME_MAX} characters")
    return value


def _filled(file: Any) -> Any:
    if not file.size:
        raise ValueError("the file is empty")
    return file


def _texts(text: object) -> dict[str, str]:
    """Parse a text as a JSON object of at most 64 strings."""
    if not isinstance(text, str) or len(text) > TEXT_MAX:
        raise ValueError(f"not a text of at most {TEXT_MAX:,} characters")
    try:
        value = parse_json(text)
    except ParseError as error:
        raise ValueError(str(error.detail)) from None
    if not isinstance(value, dict) or len(value) > 64:
        raise ValueError("not a JSON object")
    if not all(isinstance(inner, str) and len(inner) <= 120 for inner in value.values()):
        raise ValueError("every member must be a string")
    return value


File = Annotated[Any, AfterValidator(_file), WithJsonSchema({"type": "string", "format": "binary"})]
FilledFile = Annotated[File, AfterValidator(_filled)]
TextObject = Annotated[
    dict[str, str],
    BeforeValidator(_texts),
    WithJsonSchema({"type": "string", "maxLength": TEXT_MAX}),
]
