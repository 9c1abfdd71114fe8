"""Statistics of each column of a dataset, by the kind of its values; gathered row by row.

They describe lengths, counts and ranges, and never quote a text.
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
# Different texts that are counted of one column.
MAX_DISTINCT = 10_000

# The measure of a value by its type, and the word for it.
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
    """One measure of each column that has one: {column: {kind, unit, rows, min, mean, max,
    histogram}}. Texts have `distinct` too, as far as they were counted; series have
    `frequencies`, and the `range` of their values. A column of features has an entry for each,
    called `<column>.<feature>`, with the rows in which it is `missing`; of a category the measure
    is how many rows each of its values has."""

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
        """Take one validated row."""
        self._rows += 1
        for name, column in self._columns.items():
            if (value := row.get(name)) is not None:
                column.look(value)
        for name, value in row[self._features_of].items() if self._features_of else ():
            self._features.setdefault(f"{self._features_of}.{name}", _Feature()).look(value)

    def to_json(self) -> dict[str, Any]:
        """Return the statistics of the columns that hold any value."""
        found = {name: column.to_json() for name, column in self._columns.items() if column.rows}
        features = {name: each.to_json(self._rows) for name, each in self._features.items()}
        return {**found, **features}


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
        found: dict[str, Any] = {
            "kind": self._kind,
            "unit": self._unit,
            "rows": self.rows,
            **spread(self._measured),
            "histogram": histogram(self._measured),
        }
        if self._kind == "string":
            found["distinct"] = len(self._distinct)
            found["distinct_complete"] = len(self._distinct) < MAX_DISTINCT
        if self._range is not None:
            found["range"] = {"from": self._range[0], "to": self._range[1]}
            found["frequencies"] = dict(self._frequencies.most_common())
        return found


class _Feature:
    """A number or a category of each record; texts are counted by their hash."""

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
        there = sum(self._texts.values()) + len(self._numbers)
        found: dict[str, Any] = {
            "kind": "category" if self._texts else "number",
            "unit": "rows a category" if self._texts else "value",
            "rows": there,
            "missing": rows - there,
            "min": _short(min(measured, default=0)),
            "mean": _short(sum(measured) / max(len(measured), 1)),
            "max": _short(max(measured, default=0)),
            "histogram": histogram(measured),
        }
        if self._texts:
            found["distinct"] = len(self._texts)
            found["distinct_complete"] = len(self._texts) < MAX_DISTINCT
        return found


def _short(value: float) -> float:
    """Return a number with four digits: features may be far below 1."""
    return float(f"{value:.4g}")


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return minimum, mean and maximum."""
    given = list(values)
    return {
        "min": round(min(given, default=0), 3),
        "mean": round(sum(given) / max(len(given), 1), 1),
        "max": round(max(given, default=0), 3),
    }


def histogram(values: Iterable[float]) -> dict[str, Any]:
    """Return counts of `BINS` equal parts between the least and the largest value."""
    given = list(values)
    least, most = min(given, default=0), max(given, default=0)
    width = (most - least) / BINS
    counts = [0] * (BINS if width else 1)
    for value in given:
        counts[min(int((value - least) / width), BINS - 1) if width else 0] += 1
    return {"from": round(least, 4), "to": round(most, 4), "counts": counts}
