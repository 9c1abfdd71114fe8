"""What the charts draw, as plain data that a page carries in a JSON script element."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workers.jobs.models import JobEvent

# What belongs on the loss curve; learning rates and speeds would flatten it.
CURVES = (
    "loss",
    "train_loss",
    "validation_loss",
    "eval_loss",
    "validation_macro_f1",
    "validation_accuracy",
)


def curve_points(data: Mapping[str, Any]) -> dict[str, float]:
    """The values of one event that are drawn: known curves, else every loss-like number."""
    numbers = {k: v for k, v in data.items() if isinstance(v, (int, float)) and v == v}
    known = {name: numbers[name] for name in CURVES if name in numbers}
    return known or {name: value for name, value in numbers.items() if "loss" in name}


def curves(events: Iterable[JobEvent]) -> dict[str, Any]:
    """Curves over steps, one series for each metric, as the chart script reads them."""
    series: dict[str, list[dict[str, float]]] = {}
    for event in events:
        if event.step is None:
            continue
        for name, value in curve_points(event.data).items():
            points = series.setdefault(name, [])
            # The best checkpoint is measured once more at the last step; the curve has it already.
            if not points or points[-1]["x"] != event.step:
                points.append({"x": event.step, "y": value})
    return {
        "type": "line",
        "linear": True,
        "x": "step",
        "series": [{"name": name, "data": points} for name, points in series.items()],
    }


def usage_bars(days: Sequence[Mapping[str, Any]], *, tokens: bool = True) -> dict[str, Any]:
    """Bars of tokens, or of answered and failed requests, per day."""
    labels = [day["day"].strftime("%-d %b") for day in days]
    if tokens:
        series = [{"name": "tokens", "data": [day["tokens"] for day in days]}]
    else:
        series = [
            {"name": "answered", "data": [day["requests"] - day["failed"] for day in days]},
            {"name": "failed or cancelled", "data": [day["failed"] for day in days]},
        ]
    return {"type": "bar", "stacked": True, "zero": True, "labels": labels, "series": series}


def metric_by_version(points: Sequence[tuple[str, float]], name: str) -> dict[str, Any]:
    """One metric over the versions of a model, oldest first."""
    return {
        "type": "line",
        "points": True,
        "labels": [label for label, _ in points],
        "series": [{"name": name, "data": [value for _, value in points]}],
    }
