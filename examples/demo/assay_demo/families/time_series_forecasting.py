"""Time-series forecasting: a small TimesFM learns from public series and forecasts their ends."""

from __future__ import annotations

from pathlib import Path

import httpx

from assay_demo.data import series
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage


def _base(stage: Stage) -> Path:
    folder = stage.folder / "bases" / "small-timesfm"
    folder.mkdir(parents=True, exist_ok=True)
    return series.untrained_forecaster(folder)


def _train(stage: Stage) -> bytes:
    return series.json_lines(series.training_series())


def _test(stage: Stage) -> bytes:
    return series.json_lines(series.all_series())


def _call(stage: Stage, model: str) -> str:
    """Forecast the last year of CO2 from the years before, in Chronos' shape."""
    carbon = series.all_series()[0]
    values = carbon["series"]["values"]
    found = httpx.post(
        f"{stage.stack.url}/v1/tasks/time-series-forecasting/{model}",
        headers={"authorization": f"Bearer {stage.facts['key']}"},
        json={
            "inputs": [{"target": values[:-12], "start": carbon["series"]["start"]}],
            "parameters": {"prediction_length": 12, "freq": "MS"},
        },
        timeout=120,
    )
    stage.expect(found.status_code == 200, f"{model} answers: {found.text[:200]}")
    (forecast,) = found.json()["predictions"]
    return (
        f"{model} expects {forecast['0.5'][-1]:.1f} ppm of CO2 a year after its data ends "
        f"(80 % range {forecast['0.1'][-1]:.1f} to {forecast['0.9'][-1]:.1f}); {values[-1]:.1f} "
        f"came. Metered: {found.headers['x-assay-units']}."
    )


SHOWCASE = Showcase(
    task="time-series-forecasting",
    model="series-forecaster",
    description="Forecasts monthly, weekly, quarterly and yearly series.",
    base=Base(
        "small-timesfm",
        "time-series-forecasting",
        "A small TimesFM with random weights, for a demonstration.",
        "Made by Assay (examples/demo/assay_demo/data/series.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training(
        "full",
        {"steps": 1_600},
        Data("series-train", "Public domain", _train, suffix=".jsonl"),
    ),
    test=Data("series-test", "Public domain", _test, suffix=".jsonl"),
    gate=Gate(
        "relative_error", "<=", 0.9, "It must beat repeating the last cycle by a tenth at least."
    ),
    call=_call,
    demonstration=True,
)
