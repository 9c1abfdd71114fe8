"""Score forecasts from rolling origins against the seasonal naive forecast, exponential smoothing
and the last value.

MASE is the absolute error in units of the seasonal naive's error within the history (Hyndman and
Koehler 2006). The relative error is a forecast's absolute error divided by the seasonal naive's on
the same steps, as a geometric mean over series: below 1 is better than repeating the last cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.plugins import declare, run
from assay_tasks_extra.time_series_forecasting import evaluation_request, origins
from assay_tasks_extra.time_series_forecasting.baselines import (
    ETS,
    LAST,
    SEASONAL,
    Window,
    last_value,
    seasonal_naive,
    smoothing,
)

SAMPLES = 8
MAX_SLICES = 20
# Lower bound of an error, so that ratios exist; far below any relevant error.
_LEAST = 1e-12
_SHOWN_VALUES = 6


@dataclass(frozen=True, slots=True)
class Measured:
    """Mean absolute errors of one series: of each window, and of the naive within its history."""

    errors: np.ndarray
    scales: np.ndarray

    @property
    def mase(self) -> float:
        """Return the mean over the windows."""
        return float((self.errors / self.scales).mean())


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return MASE, relative error and coverage, with intervals over series, by series and
    frequency.

    Raises:
        BadMaterial: no series is long enough, or all are constant.
        Canceled: `request.progress` requests a stop.
    """
    cut = [_windows(row) for row in request.rows]
    varying = [number for number, windows in enumerate(cut) if _varies(windows)]
    if left_out := len(cut) - len(varying):
        request.progress.warn(f"{left_out} series are constant, and are left out.")
    if not varying:
        raise run.BadMaterial("Every series is constant; there is nothing to forecast.")
    rows, cut = [request.rows[number] for number in varying], [cut[number] for number in varying]
    outcomes = [request.outcomes[number].results for number in varying]
    _warn_of_leaks(rows, request.train_rows, request.progress)
    flat = [window for windows in cut for window in windows]
    forecasts = {
        "": [
            np.asarray(result["quantiles"][1][: len(window.future)])
            for results, windows in zip(outcomes, cut, strict=True)
            for result, window in zip(results, windows, strict=True)
        ],
        SEASONAL: [seasonal_naive(window) for window in flat],
        ETS: smoothing(flat, request.progress),
        LAST: [last_value(window) for window in flat],
    }
    measured = {
        name: _measured(cut, values) for name, values in forecasts.items() if values is not None
    }
    inside = _inside(outcomes, cut)
    naive = measured[SEASONAL]
    metrics = {
        **_metrics(measured[""], naive),
        "coverage_80": float(np.concatenate(inside).mean()),
    }
    baseline = _metrics(naive, naive)
    return run.EvaluationResult(
        metrics=metrics,
        baseline=baseline,
        baseline_name=SEASONAL,
        sample_size=len(rows),
        details={
            "forecasts": len(flat),
            "samples": _samples(rows, cut, forecasts),
            "baselines": [
                {"name": name, "metrics": _metrics(each, naive), "trained_on": 0}
                for name, each in measured.items()
                if name
            ],
        },
        intervals={
            "metrics": _intervals(metrics, measured[""], naive, inside),
            "baseline": _intervals(baseline, naive, naive, None),
        },
        slices=_slices(rows, measured[""], naive),
    )


def _windows(row: dict[str, Any]) -> list[Window]:
    values = np.asarray(row["series"]["values"], dtype=np.float64)
    histories = evaluation_request(row)[0].histories
    return [
        Window(
            values[: len(history)],
            values[len(history) : len(history) + row["horizon"]],
            declare.season_of(row["series"]),
        )
        for history in histories
    ]


def _varies(windows: Sequence[Window]) -> bool:
    return all(np.ptp(window.history) > 0 for window in windows)


def _scale(window: Window) -> float:
    """Return the naive's mean absolute error within the history."""
    season = window.season if window.season < len(window.history) else 1
    within = np.abs(window.history[season:] - window.history[:-season]).mean()
    # An exactly periodic series: use the size of its steps instead.
    return float(within or np.abs(np.diff(window.history)).mean())


def _measured(cut: Sequence[Sequence[Window]], forecasts: Sequence[np.ndarray]) -> list[Measured]:
    rest = iter(forecasts)
    return [
        Measured(
            np.array([np.abs(next(rest) - window.future).mean() for window in windows]),
            np.array([_scale(window) for window in windows]),
        )
        for windows in cut
    ]


def _metrics(measured: Sequence[Measured], naive: Sequence[Measured]) -> dict[str, float]:
    return {
        "mase": float(np.mean([each.mase for each in measured])),
        "relative_error": float(np.exp(_log_ratios(measured, naive).mean())),
    }


def _log_ratios(measured: Sequence[Measured], naive: Sequence[Measured]) -> np.ndarray:
    """Return the logarithm of each series' error divided by the naive's."""
    return np.array(
        [
            np.log(max(ours.errors.mean(), _LEAST)) - np.log(max(theirs.errors.mean(), _LEAST))
            for ours, theirs in zip(measured, naive, strict=True)
        ]
    )


def _inside(
    outcomes: Sequence[Sequence[dict[str, Any]]], cut: Sequence[Sequence[Window]]
) -> list[np.ndarray]:
    """Return a mask for each series: values between the 10% and the 90% quantile."""
    series = []
    for results, windows in zip(outcomes, cut, strict=True):
        parts = []
        for result, window in zip(results, windows, strict=True):
            low, _, high = (np.asarray(each[: len(window.future)]) for each in result["quantiles"])
            parts.append((window.future >= low) & (window.future <= high))
        series.append(np.concatenate(parts))
    return series


def _intervals(
    scores: dict[str, float],
    measured: Sequence[Measured],
    naive: Sequence[Measured],
    inside: Sequence[np.ndarray] | None,
) -> dict[str, dict[str, Any]]:
    """Return intervals from resampling series, because steps of one series depend on each other."""
    if len(measured) < 2:
        return {}
    errors = np.array([each.mase for each in measured])
    ratios = _log_ratios(measured, naive)
    intervals = {
        "mase": run.bootstrap(
            scores["mase"], lambda rows: float(errors[rows].mean()), len(measured)
        ),
        "relative_error": run.bootstrap(
            scores["relative_error"],
            lambda rows: float(np.exp(ratios[rows].mean())),
            len(measured),
        ),
    }
    if inside is not None:
        hits = np.array([each.sum() for each in inside])
        sizes = np.array([len(each) for each in inside])
        intervals["coverage_80"] = run.bootstrap(
            scores["coverage_80"],
            lambda rows: float(hits[rows].sum() / sizes[rows].sum()),
            len(measured),
        )
    return intervals


def _slices(
    rows: Sequence[dict[str, Any]], measured: Sequence[Measured], naive: Sequence[Measured]
) -> list[dict[str, Any]]:
    by_frequency: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        words = declare.FREQUENCY_WORDS[row["series"]["frequency"]]
        by_frequency.setdefault(f"each {words}", []).append(number)
    parts = [("frequency", name, numbers) for name, numbers in sorted(by_frequency.items())]
    parts += [("series", row["name"], [number]) for number, row in enumerate(rows)]
    ratios = _log_ratios(measured, naive)
    return [
        {
            "by": by,
            "name": name,
            "n": len(numbers),
            "metric": "relative_error",
            "value": float(np.exp(ratios[numbers].mean())),
            "baseline": 1.0,
        }
        for by, name, numbers in parts[:MAX_SLICES]
    ]


def _samples(
    rows: Sequence[dict[str, Any]],
    cut: Sequence[Sequence[Window]],
    forecasts: dict[str, list[np.ndarray] | None],
) -> list[dict[str, Any]]:
    """Return the last forecast of the first series, as numbers."""
    samples, last = [], -1
    for row, windows in list(zip(rows, cut, strict=True))[:SAMPLES]:
        last += len(windows)
        samples.append(
            {
                "input": f"{row['name']}: … {_numbers(windows[-1].history[-_SHOWN_VALUES:])}",
                "expected": _numbers(windows[-1].future),
                "output": _numbers((forecasts[""] or [])[last]),
                "baseline": _numbers((forecasts[SEASONAL] or [])[last]),
            }
        )
    return samples


def _numbers(values: np.ndarray) -> str:
    listed = ", ".join(f"{value:.5g}" for value in values[:_SHOWN_VALUES])
    return listed + (", …" if len(values) > _SHOWN_VALUES else "")


def _warn_of_leaks(
    rows: Sequence[dict[str, Any]], train: Sequence[dict[str, Any]] | None, progress: run.Progress
) -> None:
    """Warn about series whose forecast steps are in the version's training data."""
    ends = {
        _beginning(row): len(row["series"]["values"]) for row in train or [] if row.get("series")
    }
    leaked = [
        row["name"]
        for row in rows
        if ends.get(_beginning(row), 0)
        > min(origins(len(row["series"]["values"]), row["horizon"]), default=0)
    ]
    if leaked:
        progress.warn(
            f"The training data reaches into the forecasts of {len(leaked)} series, such as "
            f"{leaked[0]}, so the score is too good. End the training series earlier."
        )


def _beginning(row: dict[str, Any]) -> tuple[str, str, tuple[float, ...]]:
    series = row["series"]
    return series["start"], series["frequency"], tuple(series["values"][:8])
