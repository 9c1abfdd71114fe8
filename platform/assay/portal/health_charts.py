"""Charts and tables of a deployment's health, as plain values for templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.urls import reverse

from governance.quotas.kinds import MICRO
from governance.usage.performance import Figures, Percentiles, Phases, Span, Window
from governance.usage.units import Unit
from workers.deployments.health import Change, Health

SPANS = (
    (Span.HOUR, "1 hour"),
    (Span.DAY, "24 hours"),
    (Span.WEEK, "7 days"),
    (Span.MONTH, "30 days"),
    (Span.QUARTER, "12 weeks"),
)
_FORMATS = {
    Span.HOUR: "%H:%M",
    Span.DAY: "%H:%M",
    Span.WEEK: "%a %H:%M",
    Span.MONTH: "%-d %b",
    Span.QUARTER: "%-d %b",
}
_PHASES = {
    "load": "Load, after being idle",
    "queue": "Queue",
    "prefill": "Prefill, up to the first token",
    "stream": "Stream, after the first token",
    "compute": "Compute, of answers in one piece",
}
# Milliseconds from which a chart is drawn in seconds.
_IN_SECONDS = 10_000


@dataclass(frozen=True, slots=True)
class Segment:
    """One phase of a stacked bar on a line from 0 to 100, for SVG."""

    name: str
    x: str
    width: str


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """Mean milliseconds of one phase, in all answers and in the slowest."""

    name: str
    title: str
    all_answers: float
    slowest: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A change with its number in the charts, and its page."""

    number: int
    change: Change
    href: str


def health_context(health: Health) -> dict[str, Any]:
    """Return the figures of a period for the template."""
    figures = health.performance
    marks = _marks(health.changes)
    labels = step_labels(health.span, figures.window)
    return {
        "health": health,
        "total": figures.total,
        "unit": Unit(figures.total.unit),
        "currency": settings.CURRENCY,
        "marks": marks,
        "charts": _charts(figures.points, labels, _placed(marks, figures.window)),
        "rows": list(zip(labels, figures.points, strict=True)),
        "phases": _phase_rows(figures.all_answers, figures.slowest),
        "bars": [
            ("All answers", figures.all_answers, segments(figures.all_answers)),
            ("Slowest 5%", figures.slowest, segments(figures.slowest)),
        ],
    }


def step_labels(span: Span, window: Window) -> list[str]:
    """Return the start of each step in UTC, in the short format of the span."""
    return [moment.strftime(_FORMATS[span]) for moment in window.moments]


def segments(phases: Phases) -> list[Segment]:
    """Return a segment for each phase that took time, one after the other."""
    bar, x = [], 0.0
    for name, share in phases.shares.items():
        if share:
            bar.append(Segment(name, f"{x:.2f}", f"{100 * share:.2f}"))
        x += 100 * share
    return bar


def _phase_rows(all_answers: Phases, slowest: Phases) -> list[PhaseRow]:
    rows = [
        PhaseRow(name, title, getattr(all_answers, name), getattr(slowest, name))
        for name, title in _PHASES.items()
    ]
    return [row for row in rows if row.all_answers or row.slowest]


def _marks(changes: Sequence[Change]) -> list[Mark]:
    """Return the changes, newest first, numbered from the oldest."""
    pages = {"release": "portal:release", "policy": "portal:policy_version"}
    return [
        Mark(
            len(changes) - place,
            change,
            reverse(pages.get(change.kind, "portal:deployment"), args=[change.reference]),
        )
        for place, change in enumerate(changes)
    ]


def _placed(marks: Sequence[Mark], window: Window) -> list[dict[str, Any]]:
    """Return a mark for each step with changes, oldest first, labeled with their numbers."""
    numbers: dict[int, list[int]] = {}
    for mark in reversed(marks):
        step = (mark.change.at - window.since) // window.step
        numbers.setdefault(step, []).append(mark.number)
    return [{"index": step, "label": _range(each)} for step, each in sorted(numbers.items())]


def _range(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    return str(first) if first == last else f"{first}–{last}"


def _charts(
    points: Sequence[Figures], labels: list[str], marks: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the ID, title and data of each chart of a period."""
    unit = Unit(next((point.unit for point in points if point.requests), Unit.TOKENS))
    shared = {"labels": labels, "marks": marks}
    charts = [_times("latency", "Latency", [point.latency for point in points])]
    if any(point.first_token for point in points):
        charts.append(
            _times("first", "Time to first token", [point.first_token for point in points])
        )
    charts += [
        _bars(
            "requests",
            "Requests",
            ("answered", [p.requests - p.failed - p.canceled for p in points]),
            ("failed", [p.failed for p in points]),
            ("canceled", [p.canceled for p in points]),
        ),
        _bars("units", unit.plural.capitalize(), (unit.plural, [p.units for p in points])),
    ]
    if any(point.cost_micro for point in points):
        cost = [round(point.cost_micro / MICRO, 6) for point in points]
        charts.append(_bars("cost", f"Cost in {settings.CURRENCY}", ("cost", cost)))
    return [{**chart, "spec": {**chart["spec"], **shared}} for chart in charts]


def _times(name: str, title: str, values: Sequence[Percentiles | None]) -> dict[str, Any]:
    """Return lines of the three percentiles, with gaps at steps without answers."""
    slow = any(value.p99 >= _IN_SECONDS for value in values if value)
    scaled: Callable[[int], float] = (lambda each: each / 1000) if slow else float
    series = [
        {"name": each, "data": [scaled(getattr(v, each)) if v else None for v in values]}
        for each in ("p50", "p95", "p99")
    ]
    spec = {
        "type": "line",
        "zero": True,
        # Between two gaps, a point has no line.
        "points": True,
        "gaps": True,
        "y": "seconds" if slow else "milliseconds",
        "series": series,
    }
    return {"id": name, "title": title, "spec": spec}


def _bars(name: str, title: str, *series: tuple[str, list[Any]]) -> dict[str, Any]:
    spec = {
        "type": "bar",
        "stacked": True,
        "zero": True,
        "series": [{"name": each, "data": data} for each, data in series],
    }
    return {"id": name, "title": title, "spec": spec}
