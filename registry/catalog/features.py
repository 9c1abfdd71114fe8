"""Tabular data: the column type of dataset rows with named features, and forms for one row.

A row of a dataset is one record. A feature is either a number or a category in all of its rows; a
missing value is null. Loads neither Django nor a numerical library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from governance.faults import clauses
from registry.catalog.columns import COLUMN, column_kinds

MAX_FEATURES = 200
MAX_CATEGORIES = 200
MAX_NAME = 100
MAX_TEXT = 200
# Larger values have squares outside the range of float32.
LARGEST = 1e15
# Possessive, to read a long cell only once even if it turns out not to be a number.
_NUMBER = re.compile(
    r"[+-]?(\d++\.?\d*+|\.\d++)(e[+-]?\d++)?|[+-]?(nan|inf(inity)?)", re.IGNORECASE
)

Kind = Literal["number", "category"]
Value = float | str | None


def checked_value(value: Any) -> Value:
    """Return a number, a category or None; truth values are the categories `true` and `false`.

    Raises:
        ValueError: the value is of another type, too large, infinite or NaN.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        # Compare first: an integer may be too large for a float.
        if not (-LARGEST <= value <= LARGEST) or not math.isfinite(value):
            raise ValueError(
                "a number is finite and at most 1e15 in size; a missing value is empty or null"
            )
        return float(value)
    if isinstance(value, str) and 1 <= len(value) <= MAX_TEXT:
        return value
    raise ValueError(
        f"a value is a number, a text of 1 to {MAX_TEXT} characters, or null where it is missing"
    )


FeatureName = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
FeatureValue = Annotated[
    Any,
    BeforeValidator(checked_value),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "string", "maxLength": MAX_TEXT}, {"type": "null"}]}
    ),
]
# The values of one record by the names of its features.
Features = Annotated[
    dict[FeatureName, FeatureValue],
    Field(min_length=1, max_length=MAX_FEATURES, json_schema_extra={COLUMN: "features"}),
]


def features_column(row: type[BaseModel]) -> str:
    """Return the name of the column of type `Features`; empty if the rows have none."""
    return next((name for name, kind in column_kinds(row).items() if kind == "features"), "")


def cell_value(text: str) -> Value:
    """Return the value of a CSV cell: None, a number or a category.

    A number may be infinite or NaN, which `Features` rejects.
    """
    bare = text.strip()
    if not bare:
        return None
    return float(bare) if _NUMBER.fullmatch(bare) else bare


def kind_of(value: Value) -> Kind | None:
    """Return the kind of a feature with this value; None for a missing value."""
    if value is None:
        return None
    return "category" if isinstance(value, str) else "number"


class Feature(BaseModel):
    """One input feature of a model, as listed in its `config.json`.

    `example` is a usual value: the median of a number, the most frequent category.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: FeatureName
    kind: Kind
    categories: Annotated[list[str], Field(max_length=MAX_CATEGORIES)] = []
    example: FeatureValue = None


_FEATURES = TypeAdapter(Annotated[list[Feature], Field(max_length=MAX_FEATURES)])


def features_of(config: Mapping[str, Any]) -> list[Feature]:
    """Return the features listed in a model's configuration, with unique names.

    Raises:
        ValueError: the list is missing or malformed, or repeats a name.
    """
    try:
        features = _FEATURES.validate_python(config.get("features"))
    except ValidationError as error:
        raise ValueError(f"features: {clauses(error)[0]}") from error
    if len({each.name for each in features}) < len(features):
        raise ValueError("features: the list repeats a name")
    return features


def example_table(features: Sequence[Feature]) -> dict[str, list[Value]]:
    """Return a table of one row: a usual value of each feature."""
    return {each.name: [each.example] for each in features}
