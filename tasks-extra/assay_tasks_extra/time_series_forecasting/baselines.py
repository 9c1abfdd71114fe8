"""Forecasts without a network: repeated last cycle, last value, exponential smoothing."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assay.plugins import run

SEASONAL, LAST, ETS = "Seasonal naive", "Last value", "ETS (exponential smoothing)"
# Fitting took up to 0.5 s for a history of this length, and cannot be interrupted.
ETS_HISTORY = 400
ETS_SEASON = 60
ETS_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Window:
    """One forecast to measure: history, true future, and the steps of a cycle."""

    history: np.ndarray
    future: np.ndarray
    season: int


def seasonal_naive(window: Window) -> np.ndarray:
    """Return the last cycle, repeated; the last value if the history has no whole cycle."""
    season = window.season if window.season <= len(window.history) else 1
    return np.resize(window.history[-season:], len(window.future))


def last_value(window: Window) -> np.ndarray:
    """Return the last value, repeated."""
    return np.full(len(window.future), window.history[-1])


def smoothing(windows: Sequence[Window], progress: run.Progress) -> list[np.ndarray] | None:
    """Return the forecasts of exponential smoothing with a damped trend and an additive cycle
    (statsmodels), fitted to each history.

    Returns None, with the reason in the progress log, when that takes too long.

    Raises:
        Canceled: `progress` requests a stop.
    """
    started = time.monotonic()
    forecasts: list[np.ndarray] = []
    for window in windows:
        if progress.should_stop():
            raise run.Canceled
        if time.monotonic() - started > ETS_SECONDS:
            progress.log(
                f"{ETS} was not measured: {len(forecasts)} of {len(windows)} forecasts took "
                f"{ETS_SECONDS:g} s."
            )
            return None
        forecasts.append(_smoothed(window))
    progress.log(f"{ETS}: {len(windows)} forecasts in {time.monotonic() - started:.1f} s.")
    return forecasts


def _smoothed(window: Window) -> np.ndarray:
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    history = window.history[-ETS_HISTORY:]
    seasonal = 1 < window.season <= ETS_SEASON and len(history) >= 2 * window.season
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # Without warnings about convergence: unconverged fits are used too.
            warnings.simplefilter("ignore")
            model = ExponentialSmoothing(
                history,
                trend="add",
                damped_trend=True,
                seasonal="add" if seasonal else None,
                seasonal_periods=window.season if seasonal else None,
            )
            forecast = np.asarray(model.fit().forecast(len(window.future)), dtype=np.float64)
    # Histories of a few values, or constant ones, make the optimizer raise many kinds of errors.
    except Exception:
        return seasonal_naive(window)
    return forecast if np.isfinite(forecast).all() else seasonal_naive(window)
