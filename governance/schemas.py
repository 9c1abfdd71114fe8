"""Input of services as pydantic schemas. API, forms and commands all read input through `parsed`.

A schema has the rules that JSON Schema can express: types, bounds, choices, required fields. Rules
that need the database, the clock or a hint are in the service.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Self, TypeVar

from django.db.models import Model, QuerySet
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

from governance.bounds import (
    LINE,
    LINE_OR_EMPTY,
    NOT_IN_TEXT,
    NOT_ON_A_LINE,
    SLUG,
    TEXT,
    TEXT_OR_EMPTY,
)
from governance.errors import InvalidInput
from governance.faults import RULE, about, broken_rule, field_path, field_sentence, words

E = TypeVar("E")
M = TypeVar("M", bound=Model)
S = TypeVar("S", bound="Schema")
_NULL = {"type": "null"}


def rejecting(fails: Callable[[Any], Any], message: str, error: Any = ValueError) -> AfterValidator:
    """Return a validator that raises `error(message)` about values for which `fails` is true."""

    def check(value: E) -> E:
        if fails(value):
            raise error(message)
        return value

    return AfterValidator(check)


def _moment(value: object) -> datetime:
    """Return a date and time. Pydantic would also accept a number of seconds."""
    if isinstance(value, str) and len(value) <= 40:
        with suppress(ValueError):
            value = parse_datetime(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value
    raise ValueError(
        "must be a date and time with an offset from UTC, such as 2027-03-31T12:00:00Z"
    )


def _described(pattern: str) -> Any:
    """Return a pattern for the JSON schema; a validator checks it with a better sentence."""
    return Field(json_schema_extra={"pattern": pattern})


_CONTROL = "control characters are not allowed here"
_ON_A_LINE = rejecting(NOT_ON_A_LINE.search, _CONTROL)
_IN_TEXT = rejecting(NOT_IN_TEXT.search, _CONTROL)
_IN_A_SLUG = rejecting(
    re.compile("[^a-z0-9-]|^-|-$").search,
    "use lowercase letters, digits and hyphens, such as docstring-writer",
)
_Stripped = Annotated[str, StringConstraints(strip_whitespace=True)]
_Filled = Annotated[_Stripped, Field(min_length=1)]
Line = Annotated[_Filled, _ON_A_LINE, _described(LINE)]
Paragraphs = Annotated[_Filled, _IN_TEXT, _described(TEXT)]
LineOrEmpty = Annotated[_Stripped, _ON_A_LINE, _described(LINE_OR_EMPTY)]
ParagraphsOrEmpty = Annotated[_Stripped, _IN_TEXT, _described(TEXT_OR_EMPTY)]
# Not stripped: the text of a file, or that a model learns, stays unchanged.
Verbatim = Annotated[str, _IN_TEXT, _described(TEXT_OR_EMPTY)]
Slug = Annotated[_Filled, _IN_A_SLUG, _described(SLUG)]
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
Choice = Annotated[E, Field(strict=False)]
_IN_RANGE = rejecting(
    lambda moment: not 1970 < moment.year < 9999, "must be in a year from 1971 to 9998", broken_rule
)
Moment = Annotated[datetime, BeforeValidator(_moment), _IN_RANGE]


def instead_of(first: str) -> AfterValidator:
    """Return a validator that requires exactly one of this field and the field `first`."""

    def check(value: E, info: ValidationInfo) -> E:
        if first in info.data and (info.data[first] is None) == (value is None):
            raise broken_rule(f"give either {first} or {info.field_name}")
        return value

    return AfterValidator(check)


class Schema(BaseModel):
    """Input of one service. Unknown fields and values of the wrong type are invalid."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Filter(Schema):
    """Filters of a list. A field with a value filters the column of its name or alias."""

    model_config = ConfigDict(strict=False)

    @classmethod
    def lenient(cls, values: Mapping[str, str]) -> Self:
        """Return the valid filters, for a URL that a person may have edited."""
        try:
            return cls.model_validate(values, extra="ignore")
        except ValidationError as error:
            wrong = {problem["loc"][0] for problem in error.errors()}
            values = {name: value for name, value in values.items() if name not in wrong}
            return cls.model_validate(values, extra="ignore")

    def applied(self, rows: QuerySet[M]) -> QuerySet[M]:
        """Return the rows that match all filters with a value."""
        return rows.filter(**self.model_dump(by_alias=True, exclude_none=True))


def parsed(schema: type[S], values: object, *, strict: bool | None = None) -> S:
    """Return the values as `schema`. With `strict=False`, numbers and the like may be text.

    Raises:
        InvalidInput: with a sentence for each invalid field, by its dotted path.
    """
    try:
        return schema.model_validate(values, strict=strict)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
    fields: dict[str, list[str]] = {}
    for fault in faults:
        text = field_sentence(fault)
        if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
            text += f" Known fields: {', '.join(schema.model_fields) or 'none'}."
        fields.setdefault(field_path(fault["loc"]), []).append(text)
    name = field_path(faults[0]["loc"])
    first = f"{'' if name else 'The input is invalid: '}{about(name, words(faults[0]))}"
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    malformed = any(fault["type"] != RULE for fault in faults)
    raise InvalidInput(f"{first}{more}.", fields=fields, malformed=malformed)


def json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema for OpenAPI 3.0, with the schemas nested in it under `$defs`."""
    return dict(json.loads(json.dumps(schema.model_json_schema()), object_hook=_for_openapi))


def _for_openapi(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part without titles, `const` and the type `null`, which OpenAPI 3.0 lacks. An
    optional field is not nullable: `int | None = None` becomes an integer."""
    if isinstance(part.get("title"), str):  # Not a field of this name.
        del part["title"]
    if "const" in part:
        part["enum"] = [part.pop("const")]
    if _NULL in part.get("anyOf", ()):
        part["anyOf"].remove(_NULL)
        if len(part["anyOf"]) == 1:
            part |= part.pop("anyOf")[0]
        if part.get("default", 0) is not None:
            part["nullable"] = True
    return {name: value for name, value in part.items() if (name, value) != ("default", None)}
