"""Confidence intervals of an evaluation's numbers, in total and by slice of the data.

An evaluator hands over what only it can know, from results row by row; what follows from a number
and its sample size alone is computed here.
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
    given: Mapping[str, Any],
    *,
    metrics: Mapping[str, float],
    baseline: Mapping[str, float],
    sample_size: int,
) -> dict[str, Any]:
    """{"metrics": {name: interval}, "baseline": …}: those given, and Wilson's for proportions.

    Raises:
        InvalidInput: an interval that is none, or of something that was not measured.
    """
    proportions = {metric.name for metric in get_task(task).metrics if metric.proportion}
    found: dict[str, Any] = {}
    for part, values in (("metrics", metrics), ("baseline", baseline)):
        own = given.get(part, {})
        if unknown := sorted(set(own) - set(values)):
            raise _refused(f"{unknown[0]} has an interval, and no value.")
        checked = {name: _interval(name, values[name], own[name]) for name in own}
        for name in sorted(proportions & (set(values) - set(own))):
            checked[name] = _share(name, values[name], sample_size)
        if checked:
            found[part] = checked
    return found


def slices_of(task: str, given: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """[{by, name, n, metric, value, baseline, low, high, method}], the worst first, 20 at most.

    `by` is what the rows are parted by, `name` which part; `baseline` may be None, and so may the
    interval where the part is too small to have one.

    Raises:
        InvalidInput: a slice that is malformed, or too many.
    """
    known = {metric.name: metric for metric in get_task(task).metrics}
    found = []
    for each in given:
        metric = known.get(str(each.get("metric")))
        if metric is None:
            raise _refused(f"a slice has the metric {str(each.get('metric'))[:60]!r}.")
        value, n = _number("value", each.get("value")), each.get("n")
        if not isinstance(n, int) or n < 1:
            raise _refused(f"a slice has {n!r} rows.")
        if each.get("low") is not None:
            bounds = _interval(metric.name, value, {**each, "n": n})
        else:
            bounds = _share(metric.name, value, n) if metric.proportion else {}
        baseline = each.get("baseline")
        found.append(
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
    if len(found) > MAX_SLICES:
        raise _refused(f"there are {len(found)} slices; at most {MAX_SLICES} are kept.")

    def worst_first(each: dict[str, Any]) -> float:
        return float(each["value"] * (1 if known[each["metric"]].higher_is_better else -1))

    return sorted(found, key=worst_first)


def baselines_of(task: str, given: Any, *, sample_size: int) -> list[dict[str, Any]]:
    """Check [{name, metrics, trained_on, right?}]: simple models measured on the same rows.

    Raises:
        InvalidInput: a baseline that is malformed, or too many.
    """
    if not isinstance(given, list) or len(given) > MAX_BASELINES:
        raise _refused(f"baselines are a list of at most {MAX_BASELINES}.")
    proportions = {metric.name for metric in get_task(task).metrics if metric.proportion}
    found = []
    for each in given:
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
        kept = isinstance(right, Mapping) and right.get("n") == sample_size
        found.append(
            {
                "name": _name(each.get("name")),
                "metrics": measured,
                "trained_on": trained_on,
                **({"right": right} if kept else {}),
            }
        )
    return found


def _share(name: str, value: float, n: int) -> dict[str, Any]:
    if not 0 <= value <= 1:
        raise _refused(f"{name} is {value!r}, which is no share of the rows.")
    return wilson(value, n).to_json()


def _interval(name: str, value: float, given: Mapping[str, Any]) -> dict[str, Any]:
    low, high = _number(f"{name} low", given.get("low")), _number(f"{name} high", given.get("high"))
    n = given.get("n")
    if not low <= value <= high or not isinstance(n, int) or n < 1:
        raise _refused(f"{name} is {value!r} within {low!r} to {high!r}, of {n!r} rows.")
    return Interval(low, high, n, _name(given.get("method"))).to_json()


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refused(f"{name} is {value!r}, which is not a finite number.")
    return float(value)


def _name(value: Any) -> str:
    return str(storable_json(str(value or "")))[:_NAME_CHARACTERS]


def _refused(why: str) -> InvalidInput:
    return InvalidInput(f"The evaluation cannot be recorded: {why}")
