"""Data of charts, as plain values for a page's JSON script element."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from governance.usage.units import Unit
from workers.jobs.models import JobEvent
from workers.nodes.fleet import Utilization

# Charts on one page.
CHARTS_MAX = 12


def curve_points(data: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of one event to draw: losses and validation metrics. Learning rates and
    speeds would flatten the curves."""
    return {
        name: value
        for name, value in data.items()
        if isinstance(value, (int, float)) and value == value and is_drawn(name)
    }


def is_drawn(name: str) -> bool:
    """Return true for a loss or a metric of the validation."""
    return "loss" in name or name.startswith(("validation_", "eval_"))


def curves(events: Iterable[JobEvent]) -> dict[str, Any]:
    """Return curves over steps, one series for each metric, as the chart script reads them."""
    series: dict[str, list[dict[str, float]]] = {}
    for event in events:
        if event.step is None:
            continue
        for name, value in curve_points(event.data).items():
            points = series.setdefault(name, [])
            # The best checkpoint is measured again at the last step, which the curve already has.
            if not points or points[-1]["x"] != event.step:
                points.append({"x": event.step, "y": value})
    return {
        "type": "line",
        "linear": True,
        "x": "step",
        "series": [{"name": name, "data": points} for name, points in series.items()],
    }


def overlaid(
    runs: Sequence[tuple[str, str, Mapping[str, Mapping[int, float]]]],
) -> list[dict[str, Any]]:
    """Return one chart for each metric of several runs, losses first: a line for each run that has
    it, in the color of the run's place. A run is its short name, its name and its curves."""
    names = sorted(
        {name for *_, curves in runs for name in curves if is_drawn(name)},
        key=lambda name: ("loss" not in name, name),
    )
    charts: list[dict[str, Any]] = []
    for name in names[:CHARTS_MAX]:
        series: list[dict[str, Any]] = [
            {
                "short": short,
                "name": label,
                "color": place,
                "data": [{"x": step, "y": value} for step, value in sorted(curves[name].items())],
            }
            for place, (short, label, curves) in enumerate(runs)
            if name in curves
        ]
        charts.append(
            {
                "id": f"curve-{len(charts)}",
                "title": name,
                "type": "line",
                "linear": True,
                # A line of one or two points cannot be seen.
                "points": any(len(each["data"]) < 3 for each in series),
                "x": "step",
                "series": series,
            }
        )
    return charts


def unit_bars(days: Sequence[Mapping[str, Any]], unit: Unit = Unit.TOKENS) -> dict[str, Any]:
    """Return bars of one unit of use per day."""
    return _bars(days, [{"name": unit.plural, "data": [d["units"].get(unit, 0) for d in days]}])


def request_bars(days: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return bars of answered and failed requests per day."""
    return _bars(
        days,
        [
            {"name": "answered", "data": [day["requests"] - day["failed"] for day in days]},
            {"name": "failed or canceled", "data": [day["failed"] for day in days]},
        ],
    )


def _bars(days: Sequence[Mapping[str, Any]], series: list[dict[str, Any]]) -> dict[str, Any]:
    labels = [day["day"].strftime("%-d %b") for day in days]
    return {"type": "bar", "stacked": True, "zero": True, "labels": labels, "series": series}


def metric_by_version(points: Sequence[tuple[str, float]], name: str) -> dict[str, Any]:
    """Return one metric over the versions of a model, oldest first."""
    return {
        "type": "line",
        "points": True,
        "labels": [label for label, _ in points],
        "series": [{"name": name, "data": [value for _, value in points]}],
    }


@dataclass(frozen=True, slots=True)
class GateLine:
    """A gate, drawn as a line at its threshold over the values on its dataset."""

    name: str
    dataset: str
    threshold: float


def metric_trend(
    measured: Mapping[str, Mapping[int, float]], gates: Iterable[GateLine], live: Collection[int]
) -> dict[str, Any]:
    """Return one metric over the numbers of a model's versions, as a line for each dataset and each
    gate on it; larger points mark `live` versions."""
    numbers = sorted({number for values in measured.values() for number in values})
    series: list[dict[str, Any]] = [
        {"name": name, "color": color, "data": [values.get(number) for number in numbers]}
        for color, (name, values) in enumerate(measured.items())
    ]
    colors = {each["name"]: each["color"] for each in series}
    for gate in gates:
        if gate.dataset in colors:
            data = [gate.threshold] * len(numbers)
            line = {"name": gate.name, "color": colors[gate.dataset], "dashed": True}
            series.append({**line, "data": data})
    return {
        "type": "line",
        "points": True,
        "labels": [f"v{number}{' (live)' * (number in live)}" for number in numbers],
        "marked": [at for at, number in enumerate(numbers) if number in live],
        "series": series,
    }


_MEASURES = {
    "cpu": "processors",
    "memory": "memory",
    "device": "devices",
    "device_memory": "device memory",
}


def utilization_lines(utilization: Utilization) -> dict[str, Any]:
    """Return lines of a node's utilization in percent."""
    return {
        "type": "line",
        "zero": True,
        # A line of one or two points cannot be seen.
        "points": len(utilization.moments) < 3,
        "y": "percent",
        "labels": [moment.strftime("%H:%M") for moment in utilization.moments],
        "series": [
            {"name": _MEASURES[name], "data": values} for name, values in utilization.series.items()
        ],
    }


@dataclass(frozen=True, slots=True)
class Stretch:
    """A period of serving under a release; `until` is None while it lasts."""

    name: str
    release: int
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class LaneBar:
    """Position of a bar on a line from 0 to 100, for SVG; `faint` is true for every other release,
    to tell neighbors apart.
    """

    x: str
    width: str
    faint: bool


@dataclass(frozen=True, slots=True)
class Lane:
    """One name's line; `days` is its time of serving within the drawn period."""

    name: str
    bars: list[LaneBar]
    days: float
    serves: bool


# Keeps a period of seconds visible.
LEAST_WIDTH = 0.5


def serving_lanes(
    stretches: Iterable[Stretch], since: datetime, until: datetime, now: datetime
) -> list[Lane]:
    """Return a line for each name, in order, of its serving between two moments."""
    by_name: dict[str, list[Stretch]] = {}
    for stretch in stretches:
        by_name.setdefault(stretch.name, []).append(stretch)
    whole = (until - since).total_seconds()
    lanes = []
    for name, periods in sorted(by_name.items()):
        periods.sort(key=lambda stretch: stretch.since)
        releases = {
            release: n for n, release in enumerate(dict.fromkeys(s.release for s in periods))
        }
        bars, served = [], 0.0
        for stretch in periods:
            first, last = max(stretch.since, since), min(stretch.until or now, until)
            seconds = max(0.0, (last - first).total_seconds())
            served += seconds
            width = max(100 * seconds / whole, LEAST_WIDTH)
            x = min(100 * (first - since).total_seconds() / whole, 100 - width)
            bars.append(LaneBar(f"{x:.2f}", f"{width:.2f}", releases[stretch.release] % 2 == 1))
        lanes.append(Lane(name, bars, served / 86_400, periods[-1].until is None))
    return lanes
