"""Fields of forms with files."""

from __future__ import annotations

from typing import Annotated, Any

from django.core.files.uploadedfile import UploadedFile
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from rest_framework.exceptions import ParseError

from assay.api.parsers import parse_json
from governance.bounds import FILENAME_MAX

TEXT_MAX = 4_000


def _file(value: Any) -> Any:
    if not isinstance(value, UploadedFile):
        raise ValueError("not a file")
    if not value.name or len(value.name) > FILENAME_MAX:
        raise ValueError(f"the name of the file has not 1 to {FILENAME_MAX} characters")
    return value


def _filled(file: Any) -> Any:
    if not file.size:
        raise ValueError("the file is empty")
    return file


def _texts(value: Any) -> Any:
    """Return a JSON object of strings that is written as text."""
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise ValueError(f"not a text of at most {TEXT_MAX:,} characters")
    try:
        return parse_json(value)
    except ParseError as error:
        raise ValueError(str(error.detail)) from None


File = Annotated[Any, AfterValidator(_file), WithJsonSchema({"type": "string", "format": "binary"})]
FilledFile = Annotated[File, AfterValidator(_filled)]
TextObject = Annotated[
    dict[str, Annotated[str, Field(max_length=120)]],
    Field(max_length=64),
    BeforeValidator(_texts),
    WithJsonSchema({"type": "string", "maxLength": TEXT_MAX}),
]
