"""Metrics of several versions side by side, with the best of each marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry.catalog import TASKS
from registry.evaluations.intervals import Interval
from registry.evaluations.models import Evaluation
from registry.releases.comparison.measures import (
    ACCURACY,
    WITHIN_NOISE,
    change_of,
    described,
    numbers,
    paired_results,
)

METRICS_MAX = 60
# Standings of a value in its row; chance can explain the difference of a `TIED` one from the best.
BEST, TIED = "best", "tied"
_VALIDATION = "validation_"


@dataclass(frozen=True, slots=True)
class Column:
    """Metrics of one version. `ranked` is false if they were measured on training data; `right` has
    the results row by row, if recorded."""

    values: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    ranked: bool = True
    right: Any = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One value; `standing` is `BEST`, `TIED` or empty."""

    value: float
    interval: Interval | None
    standing: str


@dataclass(frozen=True, slots=True)
class SideRow:
    """One metric; a cell is None where it was not measured."""

    name: str
    title: str
    cells: list[Cell | None]


def column_of(evaluation: Evaluation) -> Column:
    """Return the metrics of an evaluation."""
    intervals = evaluation.intervals.get("metrics", {})
    return Column(
        values=numbers(evaluation.metrics),
        intervals={name: Interval.from_json(each) for name, each in intervals.items()},
        ranked=not evaluation.on_training_data,
        right=evaluation.details.get("right"),
    )


def side_by_side(task: str, columns: Sequence[Column | None]) -> list[SideRow]:
    """Return the metrics in the order of the columns, the primary metric of the task first."""
    entry = TASKS.get(task)
    primary = entry.primary_metric if entry is not None else ""
    names = dict.fromkeys(name for column in columns for name in (column.values if column else ()))
    rows = [_row(task, name, columns) for name in sorted(names, key=lambda name: name != primary)]
    return rows[:METRICS_MAX]


def _row(task: str, name: str, columns: Sequence[Column | None]) -> SideRow:
    title, higher = _described(task, name)
    measured = [each for each in columns if each is not None and name in each.values]
    best = _best(name, [each for each in measured if each.ranked], higher)
    return SideRow(
        name,
        title,
        [
            Cell(each.values[name], each.intervals.get(name), _standing(name, each, best, higher))
            if each is not None and name in each.values
            else None
            for each in columns
        ],
    )


def _described(task: str, name: str) -> tuple[str, bool | None]:
    """Return a metric's title, and true if higher is better (None: unknown)."""
    plain = name.removeprefix(_VALIDATION)
    title, higher = described(task, plain)
    if plain == "loss":
        higher = False
    return title if plain == name else f"Validation {title[:1].lower()}{title[1:]}", higher


def _best(name: str, columns: list[Column], higher: bool | None) -> Column | None:
    """Return the column with the best value; None for fewer than two, or without a direction."""
    if higher is None or len(columns) < 2:
        return None
    choose = max if higher else min
    return choose(columns, key=lambda each: each.values[name])


def _standing(name: str, column: Column, best: Column | None, higher: bool | None) -> str:
    if best is None or not column.ranked:
        return ""
    if column.values[name] == best.values[name]:
        return BEST
    change = change_of(
        column.values[name],
        column.intervals.get(name),
        best.values[name],
        best.intervals.get(name),
        higher,
        paired_results(column.right, best.right) if name == ACCURACY else None,
    )
    return TIED if change.verdict == WITHIN_NOISE else ""
