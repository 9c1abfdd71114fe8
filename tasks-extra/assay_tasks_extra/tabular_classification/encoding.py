"""Encode named features as columns of numbers: one for a number, one for each category. Training
and serving share this module, so that both use the same columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from assay.plugins import declare, run

MAX_COLUMNS = 2_000
# Maximum numbers (float32) of all rows; boosting uses bytes, logistic regression float64.
MAX_NUMBERS = 40_000_000


class Misfit(ValueError):
    """A table does not have the features of the model."""


def describe(rows: Sequence[dict[str, Any]]) -> list[declare.Feature]:
    """Return the features of training rows, with their categories.

    Raises:
        BadMaterial: a feature is always missing or has too many categories, or there are too many
        features.
    """
    features = []
    for name in rows[0]["features"]:
        values = [row["features"][name] for row in rows]
        present = [value for value in values if value is not None]
        kinds = {declare.feature_kind(value) for value in present}
        if len(kinds) != 1:
            raise run.BadMaterial(
                f"The feature {name!r} is missing from every row; leave it out."
                if not kinds
                else f"The feature {name!r} is a number in some rows and a text in others."
            )
        features.append(_feature(name, present))
    if sum(map(_width, features)) > MAX_COLUMNS:
        raise run.BadMaterial(
            f"The features have {sum(map(_width, features)):,} numbers and categories; at most "
            f"{MAX_COLUMNS:,} are trained on."
        )
    return features


def _feature(name: str, values: list[Any]) -> declare.Feature:
    if declare.feature_kind(values[0]) == "number":
        return declare.Feature(name=name, kind="number", example=float(f"{median(values):.6g}"))
    counts = Counter(values)
    if len(counts) > declare.MAX_CATEGORIES:
        raise run.BadMaterial(
            f"The feature {name!r} has {len(counts):,} categories; at most "
            f"{declare.MAX_CATEGORIES} are trained on. Leave out names and identifiers."
        )
    return declare.Feature(
        name=name,
        kind="category",
        categories=sorted(counts),
        example=counts.most_common(1)[0][0],
    )


def _width(feature: declare.Feature) -> int:
    return 1 if feature.kind == "number" else len(feature.categories)


def width(features: Sequence[declare.Feature]) -> int:
    """Return the number of columns."""
    return sum(map(_width, features))


def encoded_rows(features: Sequence[declare.Feature], rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return the columns of dataset rows, float32 [rows, columns].

    Raises:
        BadMaterial: there are more than `MAX_NUMBERS` numbers; raised before allocation.
        Misfit: see `encoded`.
    """
    size = len(rows) * width(features)
    if size > MAX_NUMBERS:
        raise run.BadMaterial(
            f"The rows have {size:,} numbers and categories; at most {MAX_NUMBERS:,} are accepted."
        )
    names = rows[0]["features"]
    return encoded(features, {name: [row["features"].get(name) for row in rows] for name in names})


def encoded(
    features: Sequence[declare.Feature], table: Mapping[str, Sequence[declare.CellValue]]
) -> np.ndarray:
    """Return the columns of a table, float32 [rows, columns].

    A missing number is NaN. A missing or unknown category is 0 in all of the feature's columns. A
    number may be a text.

    Raises:
        Misfit: a feature is missing or unknown, or a value does not fit its kind.
    """
    names = {each.name for each in features}
    if unknown := sorted(table.keys() - names):
        raise Misfit(f"The model does not know the feature {unknown[0]!r}.{_listed(names)}")
    if absent := sorted(names - table.keys()):
        raise Misfit(
            f"The feature {absent[0]!r} is missing; send null for an unknown value.{_listed(names)}"
        )
    rows = len(next(iter(table.values())))
    columns = np.zeros((rows, width(features)), np.float32)
    at = 0
    for feature in features:
        values = table[feature.name]
        if feature.kind == "number":
            columns[:, at] = [_number(feature.name, value) for value in values]
        else:
            places = {name: at + number for number, name in enumerate(feature.categories)}
            for row, value in enumerate(values):
                if isinstance(value, float):
                    raise Misfit(f"{feature.name} is a category; send text, not {value:g}.")
                if value is not None and value in places:
                    columns[row, places[value]] = 1
        at += _width(feature)
    return columns


def _number(name: str, value: declare.CellValue) -> float:
    number = declare.cell_value(value) if isinstance(value, str) else value
    if number is None:
        return float("nan")
    if isinstance(number, str) or not -declare.MAX_CELL_NUMBER <= number <= declare.MAX_CELL_NUMBER:
        raise Misfit(f"{name} must be a number from -1e15 to 1e15; it is {str(value)[:40]!r}.")
    return number


def _listed(names: set[str]) -> str:
    listed = ", ".join(sorted(names)[:40])
    return f" Its features are {listed}{', …' if len(names) > 40 else ''}."
