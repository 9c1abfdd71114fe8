"""Bodies and fields, read strictly."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.exceptions import ParseError, ValidationError

from assay.api import fields
from assay.api.parsers import parse_json


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (fields.Line(max_length=5), 7),
        (fields.Line(max_length=5), True),
        (fields.Line(max_length=5), ["a"]),
        (fields.Line(max_length=5), "toolong"),
        (fields.Line(max_length=5), "a\nb"),
        (fields.Line(max_length=5), "a\u202eb"),
        (fields.Line(max_length=5), ""),
        (fields.Paragraphs(max_length=9), "a\x07b"),
        (fields.Whole(), "7"),
        (fields.Whole(), 7.0),
        (fields.Whole(), True),
        (fields.Whole(max_value=9), 10),
        (fields.Identifier(), 0),
        (fields.Identifier(), 2**63),
        (fields.Number(), "1.5"),
        (fields.Number(), True),
        (fields.Number(), float("nan")),
        (fields.Truth(), "true"),
        (fields.Truth(), 1),
        (fields.Truth(), []),
        (fields.Choice(choices=["a"]), ["a"]),
        (fields.Choice(choices=["a"]), {"a": 1}),
        (fields.Choice(choices=["a"]), "b"),
        (fields.Object(), []),
        (fields.Object(max_members=1), {"a": 1, "b": 2}),
        (fields.Object(), {"a": "x" * 40_000}),
    ],
)
def test_a_value_of_another_type_or_out_of_bounds_is_refused(field: Any, value: Any) -> None:
    with pytest.raises(ValidationError):
        field.run_validation(value)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (fields.Line(max_length=5), " ab ", "ab"),
        (fields.Paragraphs(max_length=9), "a\nb", "a\nb"),
        (fields.Number(), 3, 3.0),
        (fields.Truth(), False, False),
        (fields.Object(), {"a": [1]}, {"a": [1]}),
    ],
)
def test_a_value_that_fits_is_taken(field: Any, value: Any, expected: Any) -> None:
    assert field.run_validation(value) == expected


class Body(fields.StrictSerializer):
    name = fields.Line(max_length=10)


def test_an_unknown_member_is_refused_by_name() -> None:
    serializer = Body(data={"name": "a", "naem": "b"})

    assert not serializer.is_valid()
    assert "naem" in serializer.errors
    assert "name" in str(serializer.errors["naem"][0])
