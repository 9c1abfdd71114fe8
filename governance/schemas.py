"""Input of services as pydantic schemas. API, forms and commands all read input through `parsed`.

A schema has the rules that JSON Schema can express: types, bounds, choices, required fields. Rules
that need the database, the clock or a hint are in the service.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from django.utils.dateparse import parse_datetime
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from governance.bounds import NOT_IN_TEXT, NOT_ON_A_LINE
from governance.errors import InvalidInput

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet

E = TypeVar("E")
M = TypeVar("M", bound="Model")
S = TypeVar("S", bound="Schema")
_OBJECT_CHARACTERS = 32_768
_SLUG = re.compile("[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
# Replacements of pydantic's messages, by its error type.
_SENTENCES = {
    "bool_type": "Neither true nor false",
    "dict_type": "Not an object",
    "extra_forbidden": "Unknown field",
    "finite_number": "Not a finite number",
    "float_type": "Not a number",
    "int_type": "Not a whole number",
    "list_type": "Not a list",
    "missing": "This field is required",
    "model_type": "Not an object",
    "string_too_long": "Use no more than {max_length} characters",
    "string_type": "Not a string",
    "too_long": "Use no more than {max_length}",
}


def without(characters: re.Pattern[str]) -> AfterValidator:
    """Return a validator that rejects text with any of these characters."""

    def check(value: str) -> str:
        if characters.search(value):
            raise ValueError("control characters are not allowed here")
        return value

    return AfterValidator(check)


def _slug(value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise ValueError("use small letters, digits and hyphens, such as docstring-writer")
    return value


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    if len(str(value)) > _OBJECT_CHARACTERS:
        raise ValueError(f"more than {_OBJECT_CHARACTERS:,} characters")
    return value


def _moment(value: object) -> datetime:
    """Return a date and time. Pydantic would also accept a number of seconds."""
    try:
        if isinstance(value, str) and len(value) <= 40:
            value = parse_datetime(value)
    except ValueError:
        value = None
    if isinstance(value, datetime) and value.tzinfo and 1970 < value.year < 9999:
        return value
    raise ValueError("not an ISO 8601 date and time with an offset from UTC")


_Stripped = StringConstraints(strip_whitespace=True)
_Filled = Annotated[str, _Stripped, Field(min_length=1)]
Line = Annotated[_Filled, without(NOT_ON_A_LINE)]
Paragraphs = Annotated[_Filled, without(NOT_IN_TEXT)]
LineOrEmpty = Annotated[str, _Stripped, without(NOT_ON_A_LINE)]
ParagraphsOrEmpty = Annotated[str, _Stripped, without(NOT_IN_TEXT)]
Slug = Annotated[_Filled, AfterValidator(_slug)]
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Object = Annotated[dict[str, Any], Field(max_length=64), AfterValidator(_bounded)]
Choice = Annotated[E, Field(strict=False)]
Moment = Annotated[datetime, BeforeValidator(_moment)]


def instead_of(first: str) -> AfterValidator:
    """Return a validator that requires exactly one of this field and the field `first`."""

    def check(value: E, info: ValidationInfo) -> E:
        if first in info.data and (info.data[first] is None) == (value is None):
            raise ValueError(f"give either {first} or {info.field_name}")
        return value

    return AfterValidator(check)


class Schema(BaseModel):
    """Input of one service. Unknown fields and values of the wrong type are invalid."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def sent(self) -> dict[str, Any]:
        """Return the fields that were sent, for updates in which other fields keep their value."""
        return {name: getattr(self, name) for name in self.model_fields_set}


@dataclass(frozen=True)
class Column:
    """Column of a filter, if its name differs from the filter's."""

    name: str


class Filter(Schema):
    """Filters of a list. A field with a value filters the column of its name, or its `Column`."""

    model_config = ConfigDict(strict=False)

    @classmethod
    def lenient(cls, values: Mapping[str, str]) -> Self:
        """Return the valid filters, for a URL that a person may have edited."""
        filters = {name: value for name, value in values.items() if name in cls.model_fields}
        try:
            return cls.model_validate(filters)
        except ValidationError as error:
            wrong = {problem["loc"][0] for problem in error.errors()}
            return cls.model_validate({n: v for n, v in filters.items() if n not in wrong})

    def applied(self, rows: QuerySet[M]) -> QuerySet[M]:
        """Return the rows that match all filters with a value."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is not None:
                column = next((m.name for m in field.metadata if isinstance(m, Column)), name)
                rows = rows.filter(**{column: value})
        return rows


def parsed(schema: type[S], values: object, *, strict: bool | None = None) -> S:
    """Return the values as `schema`. With `strict=False`, numbers and the like may be text.

    Raises:
        InvalidInput: with a sentence for each invalid field.
    """
    try:
        return schema.model_validate(values, strict=strict)
    except ValidationError as error:
        fields = field_errors(error, field_names=schema.model_fields)
        (name, (sentence, *_)), *others = fields.items()
        more = f" (and {len(others)} more)" if others else ""
        sentence = f"{name}: {sentence}" if name else sentence
        raise InvalidInput(f"{sentence}{more}", fields=fields) from None


def field_errors(error: ValidationError, field_names: Iterable[str] = ()) -> dict[str, list[str]]:
    """Return the sentences of an error by the dotted path of their field.

    `field_names` are the valid fields, listed in the sentence about an unknown field.
    """
    fields: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False, include_input=False):
        sentence = problem["msg"].removeprefix("Value error, ")
        if problem["type"] in _SENTENCES:
            sentence = _SENTENCES[problem["type"]].format(**problem.get("ctx", {}))
        if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
            sentence += f". Known fields: {', '.join(field_names) or 'none'}"
        path = ".".join(str(part) for part in problem["loc"])[:80]
        fields.setdefault(path, []).append(f"{sentence[:1].upper()}{sentence[1:]}.")
    return fields


def json_schema(schema: type[BaseModel]) -> JsonSchemaValue:
    """Return the JSON schema, with the schemas nested in it under `$defs`."""
    described = schema.model_json_schema(schema_generator=_InputDescription)
    for part in (described, *described.get("$defs", {}).values()):
        part.pop("title", None)
    return described


class _InputDescription(GenerateJsonSchema):
    """JSON schemas of input. An optional field is not nullable: `int | None = None` becomes an
    integer."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return {**self.generate_inner(schema["schema"]), "nullable": True}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        if described.get("default", 0) is None:
            del described["default"]
            described.pop("nullable", None)
        return described

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        described = super().literal_schema(schema)
        # OpenAPI 3.0 has no `const`.
        if "const" in described:
            described["enum"] = [described.pop("const")]
        return described

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
