"""JSON and forms, read strictly."""

from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.exceptions import ParseError

from assay.api.multipart import FilledFile
from assay.api.parsers import parse_json
from assay.api.views.datasets import TextObject
from governance.errors import InvalidInput
from governance.schemas import Schema, parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "[Infinity]",
        "1e400",
        "9" * 30,
        "9" * 5000,
        "[" * 100_000,
        "[" * 30 + "]" * 30,
        '{"a": 1, "a": 2}',
        '"a\\u0000b"',
        '{"a\\u0000b": 1}',
        '"\\ud800"',
    ],
)
def test_what_is_not_strict_json_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse_json(text)


def test_strict_json_is_read() -> None:
    assert parse_json('{"a": [1, 2.5, "ü", null, true]}') == {"a": [1, 2.5, "ü", None, True]}


class Body(Schema):
    columns: TextObject | None = None
    file: FilledFile | None = None


@pytest.mark.parametrize("text", ["[1]", '{"a": 1}', "{", {"a": "b"}, f'{{"a": "{"x" * 200}"}}'])
def test_a_text_that_is_no_object_of_strings_is_refused(text: object) -> None:
    with pytest.raises(InvalidInput):
        parsed(Body, {"columns": text})


def test_an_object_of_strings_is_read_from_text() -> None:
    assert parsed(Body, {"columns": '{"text": "review"}'}).columns == {"text": "review"}


@pytest.mark.parametrize("value", ["rows.csv", SimpleUploadedFile("rows.csv", b"")])
def test_what_is_no_file_or_an_empty_one_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput):
        parsed(Body, {"file": value})
