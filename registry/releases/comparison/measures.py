"""Measurements of a version next to the live version's, or to the evaluation's baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.catalog import TASKS
from registry.evaluations.intervals import (
    Interval,
    Paired,
    difference,
    paired_difference,
    wilson,
)
from registry.evaluations.models import Comparator, Evaluation, GateResult

SLICES_SHOWN = 20
# The metric with a right or wrong answer for each row.
ACCURACY = "accuracy"
# Verdicts on a change; `unsure` if one of the two has no interval.
BETTER, WORSE, WITHIN_NOISE, UNSURE, ALONE = "better", "worse", "within_noise", "unsure", "alone"


@dataclass(frozen=True, slots=True)
class GateCheck:
    """A gate's result. `clear` is true if the whole interval lies on the value's side of the
    threshold; None without an interval."""

    comparator: str
    threshold: float
    value: float | None
    passed: bool
    clear: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """One number compared with another. `size` is new minus old, within `low` to `high` with 95%
    confidence; `paired` is true if the interval comes from both answers to each row, rather than
    from two numbers as if of different rows. `verdict` is one of this module's constants; `better`
    is only the direction."""

    old: float | None
    old_interval: Interval | None
    size: float | None
    low: float | None
    high: float | None
    better: bool | None
    verdict: str
    paired: bool = False


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric of an evaluation; `n` is the number of rows measured."""

    name: str
    title: str
    value: float
    interval: Interval | None
    n: int
    change: Change
    gates: list[GateCheck]


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One metric on one slice of the data."""

    by: str
    name: str
    title: str
    n: int
    value: float
    interval: Interval | None
    change: Change


@dataclass(frozen=True, slots=True)
class BaselineRow:
    """The accuracy of a simple model on the same rows; `change` is the version's difference.

    `trained_on` counts the rows that it was trained on: 0 for a constant answer.
    """

    name: str
    value: float
    interval: Interval
    trained_on: int
    change: Change


def change_of(
    new: float,
    interval: Interval | None,
    old: float | None,
    old_interval: Interval | None,
    higher_is_better: bool | None,
    pairs: Paired | None = None,
) -> Change:
    """Judge `new` against `old`; `pairs` are both answers to each row, where known."""
    if old is None:
        return Change(None, None, None, None, None, None, ALONE)
    size = new - old
    better = None if not size or higher_is_better is None else (size > 0) == higher_is_better
    if interval is None or old_interval is None:
        return Change(old, old_interval, size, None, None, better, UNSURE)
    if pairs is None:
        low, high = difference(new, interval, old, old_interval)
    else:
        low, high = paired_difference(pairs)
    verdict = UNSURE
    if low <= 0 <= high:
        verdict = WITHIN_NOISE
    elif better is not None:
        verdict = BETTER if better else WORSE
    return Change(old, old_interval, size, low, high, better, verdict, pairs is not None)


def metric_rows(
    evaluation: Evaluation,
    task: str,
    old: Mapping[str, Any],
    old_intervals: Mapping[str, Any],
    live: Evaluation | None = None,
) -> list[MetricRow]:
    """Compare the evaluation's metrics with `old`, those with a gate first. `live` is the
    evaluation that `old` comes from, on the same rows; None if `old` is the baseline's."""
    gates: dict[str, list[GateResult]] = {}
    for result in evaluation.gate_results.all():
        gates.setdefault(result.gate.metric, []).append(result)
    values, before = numbers(evaluation.metrics), numbers(old)
    pairs = _baseline_pairs(evaluation) if live is None else paired_rows(evaluation, live)
    own = evaluation.intervals.get("metrics", {})
    rows = []
    for name, value in values.items():
        title, higher = described(task, name)
        interval = _interval(own.get(name))
        rows.append(
            MetricRow(
                name=name,
                title=title,
                value=value,
                interval=interval,
                n=interval.n if interval else evaluation.sample_size,
                change=change_of(
                    value,
                    interval,
                    before.get(name),
                    _interval(old_intervals.get(name)),
                    higher,
                    pairs if name == ACCURACY else None,
                ),
                gates=[_gate(result, interval) for result in gates.pop(name, [])],
            )
        )
    return sorted(rows, key=lambda row: not row.gates)


def baseline_rows(evaluation: Evaluation, task: str) -> list[BaselineRow]:
    """Return the accuracy of each baseline, and the version's difference from it."""
    own = numbers(evaluation.metrics).get(ACCURACY)
    if own is None or not _is_proportion(task, ACCURACY):
        return []
    n = evaluation.sample_size
    rows = []
    for each in evaluation.details.get("baselines") or ():
        value = each["metrics"].get(ACCURACY)
        if value is not None:
            interval = wilson(value, n)
            pairs = paired_results(evaluation.details.get("right"), each.get("right"))
            change = change_of(own, wilson(own, n), value, interval, True, pairs)
            rows.append(BaselineRow(each["name"], value, interval, each["trained_on"], change))
    return rows


def _baseline_pairs(evaluation: Evaluation) -> Paired | None:
    """Pair the version, row by row, with the baseline that its numbers are compared with."""
    for each in evaluation.details.get("baselines") or ():
        if each["name"] == evaluation.baseline_name:
            return paired_results(evaluation.details.get("right"), each.get("right"))
    return None


def paired_rows(new: Evaluation, old: Evaluation) -> Paired | None:
    """Count the rows that both, one or neither got right; None if one did not record it. Both
    are on the same dataset version."""
    return paired_results(new.details.get("right"), old.details.get("right"))


def paired_results(ours: Any, theirs: Any) -> Paired | None:
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        return None
    n = ours.get("n")
    if not isinstance(n, int) or n < 1 or n != theirs.get("n"):
        return None
    try:
        first, second = int(str(ours["bits"]), 16), int(str(theirs["bits"]), 16)
    except (KeyError, ValueError):
        return None
    both, new_only = (first & second).bit_count(), (first & ~second).bit_count()
    old_only = (second & ~first).bit_count()
    neither = n - both - new_only - old_only
    return Paired(both, new_only, old_only, neither) if neither >= 0 else None


def gates_not_measured(evaluation: Evaluation) -> list[GateCheck]:
    """Return the gates on metrics that were not measured, which fail."""
    return [
        _gate(result, None)
        for result in evaluation.gate_results.all()
        if result.gate.metric not in evaluation.metrics
    ]


def slice_rows(evaluation: Evaluation, task: str, live: Evaluation | None) -> list[SliceRow]:
    """Compare the evaluation's slices with the live version's, else the baseline's; worst first."""
    theirs = (
        {(each["by"], each["name"], each["metric"]): each for each in live.slices} if live else {}
    )
    rows = []
    for each in evaluation.slices[:SLICES_SHOWN]:
        title, higher = described(task, each["metric"])
        interval = _slice_interval(each)
        if live is None:
            old, old_interval = each.get("baseline"), None
            if old is not None and _is_proportion(task, each["metric"]):
                old_interval = wilson(old, each["n"])
        else:
            other = theirs.get((each["by"], each["name"], each["metric"]), {})
            old, old_interval = other.get("value"), _slice_interval(other)
        rows.append(
            SliceRow(
                by=each["by"],
                name=each["name"],
                title=title,
                n=each["n"],
                value=each["value"],
                interval=interval,
                change=change_of(each["value"], interval, old, old_interval, higher),
            )
        )
    return rows


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the entries that are numbers, booleans excluded."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def described(task: str, metric: str) -> tuple[str, bool | None]:
    """Return the task's title of a metric, and true if higher is better (None: unknown)."""
    entry = TASKS.get(task)
    for measure in entry.metrics if entry else ():
        if measure.name == metric:
            return measure.title, measure.higher_is_better
    if metric.startswith("f1_"):
        return f"F1 of “{metric.removeprefix('f1_')}”", True
    title = metric.replace("_", " ")
    return title[:1].upper() + title[1:], None


def _is_proportion(task: str, metric: str) -> bool:
    entry = TASKS.get(task)
    return any(each.name == metric and each.proportion for each in (entry.metrics if entry else ()))


def _interval(data: Mapping[str, Any] | None) -> Interval | None:
    return Interval.from_json(data) if data else None


def _slice_interval(each: Mapping[str, Any]) -> Interval | None:
    return Interval.from_json(each) if each.get("low") is not None else None


def _gate(result: GateResult, interval: Interval | None) -> GateCheck:
    clear = None
    if interval is not None:
        above, below = interval.low >= result.threshold, interval.high <= result.threshold
        if result.gate.comparator == Comparator.AT_MOST:
            above, below = below, above
        clear = above if result.passed else below
    return GateCheck(
        comparator=result.gate.comparator,
        threshold=result.threshold,
        value=result.value,
        passed=result.passed,
        clear=clear,
        why=result.gate.why,
    )
