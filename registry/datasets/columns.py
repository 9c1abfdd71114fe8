"""Statistics of each column of a dataset, by the kind of its values, gathered row by row.

They describe lengths, counts and ranges, and never contain a text.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from registry.catalog.columns import column_kinds, media_columns
from registry.catalog.features import Value, features_column

BINS = 10
# Maximum number of distinct texts that are counted in one column.
MAX_DISTINCT = 10_000

# Name of a measure, and the function that computes it for a value.
_Measure = tuple[str, Callable[[Any], float]]
_MEASURES: dict[str, _Measure] = {
    "string": ("characters", len),
    "integer": ("value", float),
    "number": ("value", float),
    "boolean": ("value", float),
    "array": ("items", len),
    "series": ("steps", lambda value: len(value["values"])),
}


class ColumnStatistics:
    """Measures of the measurable columns: {column: {kind, unit, rows, min, mean, max, histogram}}.

    Texts also have `distinct`, up to a limit; series have `frequencies` and the `range` of their
    values. A column of features has one entry per feature, `<column>.<feature>`, with the number of
    rows in which it is `missing`; the measure of a category is the number of rows of each value.
    """

    def __init__(self, row: type[BaseModel]) -> None:
        media = media_columns(row)
        self._rows = 0
        self._features_of = features_column(row)
        self._features: dict[str, _Feature] = {}
        self._columns = {
            name: _Column(kind)
            for name, kind in column_kinds(row).items()
            if name not in media and kind in _MEASURES
        }

    def look(self, row: Mapping[str, Any]) -> None:
        """Count one validated row."""
        self._rows += 1
        for name, column in self._columns.items():
            if (value := row.get(name)) is not None:
                column.look(value)
        for name, value in row[self._features_of].items() if self._features_of else ():
            self._features.setdefault(f"{self._features_of}.{name}", _Feature()).look(value)

    def to_json(self) -> dict[str, Any]:
        """Return the statistics of all columns with at least one value."""
        columns = {name: column.to_json() for name, column in self._columns.items() if column.rows}
        features = {name: each.to_json(self._rows) for name, each in self._features.items()}
        return {**columns, **features}


class _Column:
    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._unit, self._measure = _MEASURES[kind]
        self._measured = array("d")
        self._distinct: set[int] = set()
        self._frequencies: Counter[str] = Counter()
        self._range: tuple[float, float] | None = None

    @property
    def rows(self) -> int:
        """Rows in which the column has a value."""
        return len(self._measured)

    def look(self, value: Any) -> None:
        self._measured.append(self._measure(value))
        if self._kind == "string" and len(self._distinct) < MAX_DISTINCT:
            self._distinct.add(hash(value))
        if self._kind == "series":
            least, most = self._range or (float("inf"), float("-inf"))
            self._range = (min(least, *value["values"]), max(most, *value["values"]))
            self._frequencies[value["frequency"]] += 1

    def to_json(self) -> dict[str, Any]:
        statistics: dict[str, Any] = {
            "kind": self._kind,
            "unit": self._unit,
            "rows": self.rows,
            **spread(self._measured),
            "histogram": histogram(self._measured),
        }
        if self._kind == "string":
            statistics["distinct"] = len(self._distinct)
            statistics["distinct_complete"] = len(self._distinct) < MAX_DISTINCT
        if self._range is not None:
            statistics["range"] = {"from": self._range[0], "to": self._range[1]}
            statistics["frequencies"] = dict(self._frequencies.most_common())
        return statistics


class _Feature:
    """Statistics of one feature, a number or a category; texts are counted by their hash."""

    def __init__(self) -> None:
        self._numbers = array("d")
        self._texts: Counter[int] = Counter()

    def look(self, value: Value) -> None:
        if isinstance(value, str):
            if len(self._texts) < MAX_DISTINCT or hash(value) in self._texts:
                self._texts[hash(value)] += 1
        elif value is not None:
            self._numbers.append(value)

    def to_json(self, rows: int) -> dict[str, Any]:
        measured = array("d", self._texts.values()) if self._texts else self._numbers
        present = sum(self._texts.values()) + len(self._numbers)
        statistics: dict[str, Any] = {
            "kind": "category" if self._texts else "number",
            "unit": "rows a category" if self._texts else "value",
            "rows": present,
            "missing": rows - present,
            "min": _short(min(measured, default=0)),
            "mean": _short(sum(measured) / max(len(measured), 1)),
            "max": _short(max(measured, default=0)),
            "histogram": histogram(measured),
        }
        if self._texts:
            statistics["distinct"] = len(self._texts)
            statistics["distinct_complete"] = len(self._texts) < MAX_DISTINCT
        return statistics


def _short(value: float) -> float:
    """Round to four significant digits, because features may be far below 1."""
    return float(f"{value:.4g}")


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return minimum, mean and maximum, all 0 without values."""
    numbers = list(values)
    return {
        "min": round(min(numbers, default=0), 3),
        "mean": round(sum(numbers) / max(len(numbers), 1), 1),
        "max": round(max(numbers, default=0), 3),
    }


def histogram(values: Iterable[float]) -> dict[str, Any]:
    """Return the counts in `BINS` equal bins between the smallest and the largest value."""
    numbers = list(values)
    least, most = min(numbers, default=0), max(numbers, default=0)
    width = (most - least) / BINS
    counts = [0] * (BINS if width else 1)
    for value in numbers:
        counts[min(int((value - least) / width), BINS - 1) if width else 0] += 1
    return {"from": round(least, 4), "to": round(most, 4), "counts": counts}
