"""Confidence intervals of an evaluation's numbers, in total and by slice of the data.

An evaluator passes the intervals that need results row by row; those that need only a number and
its sample size are computed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from governance.errors import InvalidInput
from registry.catalog import get_task
from registry.evaluations.intervals import Interval, wilson
from registry.validation import checked_numbers, storable_json

MAX_SLICES = 20
MAX_BASELINES = 5
_NAME_CHARACTERS = 120


def intervals_of(
    task: str,
    intervals: Mapping[str, Any],
    *,
    metrics: Mapping[str, float],
    baseline: Mapping[str, float],
    sample_size: int,
) -> dict[str, Any]:
    """Return {"metrics": {name: interval}, "baseline": …}, with Wilson's for other proportions.

    Raises:
        InvalidInput: an interval is malformed, or of a number that was not measured.
    """
    proportions = {metric.name for metric in get_task(task).metrics if metric.proportion}
    result: dict[str, Any] = {}
    for part, values in (("metrics", metrics), ("baseline", baseline)):
        own = intervals.get(part, {})
        if unknown := sorted(set(own) - set(values)):
            raise _refused(f"{unknown[0]} has an interval but no value.")
        checked = {name: _interval(name, values[name], own[name]) for name in own}
        for name in sorted(proportions & (set(values) - set(own))):
            checked[name] = _share(name, values[name], sample_size)
        if checked:
            result[part] = checked
    return result


def slices_of(task: str, slices: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return [{by, name, n, metric, value, baseline, low, high, method}], worst first, at most 20.

    `by` is the attribute that splits the rows, `name` its value in the slice. `baseline` may be
    None, and so may the interval of a slice that is too small to have one.

    Raises:
        InvalidInput: a slice is malformed, or there are too many.
    """
    metrics = {metric.name: metric for metric in get_task(task).metrics}
    checked = []
    for each in slices:
        metric = metrics.get(str(each.get("metric")))
        if metric is None:
            raise _refused(f"a slice has the unknown metric {str(each.get('metric'))[:60]!r}.")
        value, n = _number("value", each.get("value")), each.get("n")
        if not isinstance(n, int) or n < 1:
            raise _refused(f"a slice has {n!r} rows.")
        if each.get("low") is not None:
            bounds = _interval(metric.name, value, {**each, "n": n})
        else:
            bounds = _share(metric.name, value, n) if metric.proportion else {}
        baseline = each.get("baseline")
        checked.append(
            {
                "by": _name(each.get("by")),
                "name": _name(each.get("name")),
                "n": n,
                "metric": metric.name,
                "value": value,
                "baseline": None if baseline is None else _number("baseline", baseline),
                **{name: bounds.get(name) for name in ("low", "high", "method")},
            }
        )
    if len(checked) > MAX_SLICES:
        raise _refused(f"there are {len(checked)} slices; at most {MAX_SLICES} are accepted.")

    def worst_first(each: dict[str, Any]) -> float:
        return float(each["value"] * (1 if metrics[each["metric"]].higher_is_better else -1))

    return sorted(checked, key=worst_first)


def baselines_of(task: str, baselines: Any, *, sample_size: int) -> list[dict[str, Any]]:
    """Check [{name, metrics, trained_on, right?}]: simple models measured on the same rows.

    Raises:
        InvalidInput: a baseline is malformed, or there are too many.
    """
    if not isinstance(baselines, list) or len(baselines) > MAX_BASELINES:
        raise _refused(f"baselines are a list of at most {MAX_BASELINES}.")
    proportions = {metric.name for metric in get_task(task).metrics if metric.proportion}
    checked = []
    for each in baselines:
        trained_on = each.get("trained_on") if isinstance(each, Mapping) else None
        if not isinstance(trained_on, int) or trained_on < 0:
            raise _refused(f"a baseline was trained on {trained_on!r} rows.")
        metrics = each.get("metrics")
        if not isinstance(metrics, Mapping):
            raise _refused(f"a baseline has the metrics {str(metrics)[:60]!r}.")
        measured = checked_numbers(metrics, field="baselines")
        for name in proportions & set(measured):
            _share(name, measured[name], sample_size)
        right = each.get("right")
        is_complete = isinstance(right, Mapping) and right.get("n") == sample_size
        checked.append(
            {
                "name": _name(each.get("name")),
                "metrics": measured,
                "trained_on": trained_on,
                **({"right": right} if is_complete else {}),
            }
        )
    return checked


def _share(name: str, value: float, n: int) -> dict[str, Any]:
    if not 0 <= value <= 1:
        raise _refused(f"{name} is {value!r}, which is not between 0 and 1.")
    return wilson(value, n).to_json()


def _interval(name: str, value: float, bounds: Mapping[str, Any]) -> dict[str, Any]:
    low, high = (
        _number(f"{name} low", bounds.get("low")),
        _number(f"{name} high", bounds.get("high")),
    )
    n = bounds.get("n")
    if not low <= value <= high or not isinstance(n, int) or n < 1:
        raise _refused(f"{name} is {value!r} within {low!r} to {high!r}, of {n!r} rows.")
    return Interval(low, high, n, _name(bounds.get("method"))).to_json()


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refused(f"{name} is {value!r}, which is not a finite number.")
    return float(value)


def _name(value: Any) -> str:
    return str(storable_json(str(value or "")))[:_NAME_CHARACTERS]


def _refused(why: str) -> InvalidInput:
    return InvalidInput(f"The evaluation cannot be recorded: {why}")
