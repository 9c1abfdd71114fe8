"""Input is read strictly, within bounds, and described as JSON schema."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from pydantic import Field

from governance.errors import InvalidInput
from governance.people.models import Role
from governance.schemas import (
    Choice,
    Filter,
    Id,
    Line,
    LineOrEmpty,
    Moment,
    Paragraphs,
    Schema,
    Slug,
    json_schema,
    parsed,
)


class Nested(Schema):
    name: Slug = Field(max_length=9)


class Sample(Schema):
    line: Line | None = Field(default=None, max_length=5)
    note: LineOrEmpty = Field(default="", max_length=5)
    text: Paragraphs | None = Field(default=None, max_length=9)
    key: Id | None = None
    count: int | None = Field(default=None, ge=0, le=9)
    number: float = 0.0
    truth: bool = False
    word: Literal["a", "b"] | None = None
    role: Choice[Role] | None = None
    at: Moment | None = None
    nested: Nested | None = None
    keys: list[Id] | None = Field(default=None, max_length=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("line", 7), ("line", True), ("line", ["a"]), ("line", "toolong"), ("line", "a\nb"),
        ("line", "a\u202eb"), ("line", ""), ("line", "  "), ("text", "a\x07b"),
        ("nested", {"name": "Upper"}), ("nested", {"name": "-a"}), ("nested", {"name": "a/b"}),
        ("nested", {}), ("nested", []), ("count", "7"), ("count", 7.0), ("count", True),
        ("count", 10), ("key", 0), ("key", 2**63), ("number", "1.5"), ("number", True),
        ("number", float("nan")), ("truth", "true"), ("truth", 1), ("truth", []), ("word", ["a"]),
        ("word", "c"), ("role", "king"), ("role", {"a": 1}), ("at", "2027-01-01"),
        ("at", "2027-01-01T00:00:00"), ("at", "2027-13-01T00:00:00Z"), ("at", 1),
        ("at", "1969-12-31T00:00:00Z"), ("keys", [1, 2, 3]), ("keys", ["1"]),
    ],
)  # fmt: skip
def test_a_value_of_another_type_or_out_of_bounds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(Sample, {field: value})
    assert [name.split(".")[0] for name in refused.value.fields] == [field]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("line", " ab ", "ab"), ("line", None, None), ("note", "", ""), ("text", "a\nb", "a\nb"),
        ("nested", {"name": "writer"}, Nested(name="writer")), ("number", 3, 3.0),
        ("truth", False, False), ("role", "admin", Role.ADMIN),
        ("at", "2027-01-01T00:00:00Z", datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_a_value_that_fits_is_taken(field: str, value: Any, expected: Any) -> None:
    schema = parsed(Sample, {field: value})

    assert getattr(schema, field) == expected
    assert schema.model_fields_set == {field}


def test_unknown_and_missing_fields_are_named() -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(Nested, {"naem": "a"})

    assert refused.value.fields == {
        "name": ["This field is required."],
        "naem": ["This field is unknown. Known fields: name."],
    }
    assert refused.value.message == "name is required (and 1 more)."


def test_nested_fields_are_named_with_dots() -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(Sample, {"nested": {"name": "a/b"}, "keys": [1, "x"]})

    assert list(refused.value.fields) == ["nested.name", "keys.1"]


def test_what_may_be_left_out_is_described_by_its_type() -> None:
    described = json_schema(Sample)

    line = described["properties"]["line"]
    assert line.pop("pattern").startswith("^[^\\x00-\\x1f")
    assert line == {"type": "string", "minLength": 1, "maxLength": 5}
    assert described["properties"]["nested"] == {"$ref": "#/$defs/Nested"}
    assert "required" not in described
    assert described["additionalProperties"] is False


@pytest.mark.parametrize(
    "text", ["a", " a b ", "a\tb", "a\nb", "a\x00", "\u202ea", "  ", "", "-a", "a-b"]
)
@pytest.mark.parametrize("name", ["line", "note", "text", "name"])
def test_what_the_description_allows_is_taken(name: str, text: str) -> None:
    owner: type[Schema] = Nested if name == "name" else Sample
    field = json_schema(owner)["properties"][name]
    if re.search(field["pattern"], text) and len(text) >= field.get("minLength", 0):
        parsed(owner, {name: text})
    elif text == text.strip():
        with pytest.raises(InvalidInput):
            parsed(owner, {name: text})


class Change(Schema):
    """A value that may be null, and one choice."""

    limit: int | None
    mode: Literal["repair"] = "repair"


def test_a_required_null_and_a_single_choice_are_described() -> None:
    described = json_schema(Change)

    assert described["required"] == ["limit"]
    assert described["properties"]["limit"] == {"type": "integer", "nullable": True}
    assert described["properties"]["mode"]["enum"] == ["repair"]


class Rows(Filter):
    """Filters of an invented list."""

    key: Id | None = None
    role: Role | None = None


def test_a_filter_of_an_address_keeps_what_fits() -> None:
    assert Rows.lenient({"key": "7", "role": "king", "page": "2"}) == Rows(key=7)
    with pytest.raises(InvalidInput):
        parsed(Rows, {"key": "7", "role": "king"})
