"""Confidence intervals as words, and as bars on a line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from assay.portal.templatetags.assay import measured
from registry.evaluations.intervals import Interval
from registry.releases.anchors import metric_key
from registry.releases.comparison.measures import (
    ALONE,
    BETTER,
    WITHIN_NOISE,
    WORSE,
    BaselineRow,
    Change,
    GateCheck,
    MetricRow,
    SliceRow,
)

_VERDICTS = {
    BETTER: "significantly better",
    WORSE: "significantly worse",
    WITHIN_NOISE: "no significant change",
    ALONE: "",
}


@dataclass(frozen=True, slots=True)
class Span:
    """Position of an interval and its value on a line from 0 to 100, for SVG."""

    x: str
    width: str
    value: str


@dataclass(frozen=True, slots=True)
class Bar:
    """The new value above the old one; `gates` are thresholds on the same line."""

    new: Span | None
    old: Span | None
    gates: list[str]


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate in words."""

    check: GateCheck
    words: str


@dataclass(frozen=True, slots=True)
class Row:
    """A metric, or one slice of the data, as a page shows it. `range`, `old_range` and
    `change_range` are intervals in words, or empty; `key` is the place of comments on it."""

    key: str
    title: str
    about: str
    n: int
    value: float
    range: str
    method: str
    old: float | None
    old_range: str
    change: Change
    change_range: str
    verdict: str
    bar: Bar | None
    gates: list[Gate]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A simple model on the same rows, and the version's change over it."""

    name: str
    trained_on: int
    value: float
    range: str
    change: Change
    change_range: str
    verdict: str


def baseline_row(row: BaselineRow) -> Baseline:
    return Baseline(
        name=row.name,
        trained_on=row.trained_on,
        value=row.value,
        range=range_words(row.interval),
        change=row.change,
        change_range=_change_range(row.change),
        verdict=verdict_words(row.change),
    )


def metric_row(row: MetricRow, evaluation_id: int) -> Row:
    gates = [Gate(check, gate_words(check)) for check in row.gates]
    return _row(row, row.title, row.name, gates, metric_key(evaluation_id, row.name))


def slice_row(row: SliceRow) -> Row:
    return _row(row, row.name, f"{row.title} by {row.by}", [])


def _row(
    row: MetricRow | SliceRow, title: str, about: str, gates: list[Gate], key: str = ""
) -> Row:
    change = row.change
    return Row(
        key=key,
        title=title,
        about=about,
        n=row.n,
        value=row.value,
        range=range_words(row.interval),
        method=row.interval.method if row.interval else "",
        old=change.old,
        old_range=range_words(change.old_interval),
        change=change,
        change_range=_change_range(change),
        verdict=verdict_words(change),
        bar=bar_of(
            row.value,
            row.interval,
            change.old,
            change.old_interval,
            [gate.check.threshold for gate in gates],
        ),
        gates=gates,
    )


def _change_range(change: Change) -> str:
    if change.low is None or change.high is None:
        return ""
    return f"{_signed(change.low)} to {_signed(change.high)}"


def range_words(interval: Interval | None) -> str:
    """Return an interval as `0.712 to 0.791`."""
    return f"{measured(interval.low)} to {measured(interval.high)}" if interval else ""


def verdict_words(change: Change) -> str:
    """Describe a change in words."""
    if change.verdict in _VERDICTS:
        words = _VERDICTS[change.verdict]
        return f"{words}, row by row" if change.paired else words
    if change.low is not None:
        return "significantly different"
    return "significance unknown" if change.size else "the same"


def gate_words(gate: GateCheck) -> str:
    """Describe the gate's result, and say when the sample is too small to tell."""
    words = "pass" if gate.passed else "fail" if gate.value is not None else "not measured"
    return f"{words}, not significantly" if gate.clear is False else words


def bar_of(
    value: float,
    interval: Interval | None,
    old: float | None,
    old_interval: Interval | None,
    thresholds: Iterable[float],
) -> Bar | None:
    """Place both values on one line with a margin; None if neither has an interval."""
    if interval is None and old_interval is None:
        return None
    thresholds = list(thresholds)
    points = [value, *thresholds, *([] if old is None else [old])]
    for bounds in (interval, old_interval):
        points += [bounds.low, bounds.high] if bounds else []
    least, most = min(points), max(points)
    margin = (most - least) * 0.06 or abs(most) * 0.06 or 1.0
    start, length = least - margin, (most - least) + 2 * margin

    def at(point: float) -> float:
        return 100 * (point - start) / length

    def span(point: float, around: Interval | None) -> Span:
        low, high = (around.low, around.high) if around else (point, point)
        return Span(f"{at(low):.2f}", f"{max(at(high) - at(low), 0.5):.2f}", f"{at(point):.2f}")

    return Bar(
        new=span(value, interval),
        old=span(old, old_interval) if old is not None else None,
        gates=[f"{at(each):.2f}" for each in thresholds],
    )


def _signed(value: float) -> str:
    return f"+{measured(value)}" if value > 0 else measured(value)
