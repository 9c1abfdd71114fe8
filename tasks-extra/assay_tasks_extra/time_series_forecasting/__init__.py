"""Time-series forecasting: the next values of a series, with their uncertainty."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from assay_tasks_extra.time_series_forecasting.endpoints import ForecastRequest, read_forecast
from assay_tasks_extra.time_series_forecasting.schema import (
    ORIGINS,
    Forecast,
    ForecastInputs,
    ForecastOptions,
    NamedSeries,
)

# Airline passengers of three years, in thousands (Box and Jenkins 1976).
SAMPLE = [
    112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118,
    115, 126, 141, 135, 125, 149, 170, 170, 158, 133, 114, 140,
    145, 150, 178, 163, 172, 178, 199, 199, 184, 162, 146, 166,
]  # fmt: skip


class TrainingHyperparameters(BaseModel):
    """Settings of training. A share of the windows, `made_share`, comes from synthetic series
    (trends, cycles and noise), against overfitting to a few real ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=800, ge=8, le=100_000)
    learning_rate: declare.LearningRate = 2e-3
    batch_size: int = Field(default=64, ge=1, le=1024)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    made_share: float = Field(default=0.5, ge=0, le=0.95)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


def row_input(row: dict[str, Any]) -> str:
    """Return the values: equal values in training and test data are a leak."""
    return json.dumps(row["series"]["values"])


def origins(values: int, horizon: int) -> list[int]:
    """Return the lengths of the histories to forecast from, shortest first: up to six consecutive
    forecasts of `horizon` steps, the last of which ends with the series."""
    lengths = [values - horizon * (number + 1) for number in range(ORIGINS)]
    return [
        length
        for length in reversed(lengths)
        if length >= max(declare.MIN_SERIES_VALUES, 2 * horizon)
    ]


def evaluation_request(row: dict[str, Any]) -> tuple[ForecastInputs, ForecastOptions]:
    """Return the request that forecasts the series from each of its origins.

    For a series that is too short for one, forecast its last value.
    """
    series, horizon = row["series"], row["horizon"]
    values = series["values"]
    lengths = origins(len(values), horizon) or [len(values) - 1]
    return (
        ForecastInputs(
            histories=[values[:length] for length in lengths], frequency=series["frequency"]
        ),
        ForecastOptions(prediction_length=horizon, quantile_levels=[0.1, 0.5, 0.9]),
    )


TASK = declare.Task(
    interface=1,
    name="time-series-forecasting",
    title="Time-series forecasting",
    description="Forecasts the next values of a series, with their likely range.",
    modality="timeseries",
    family=declare.Family.DECISIONS,
    inputs=(declare.Modality.SERIES,),
    outputs=(declare.Modality.SERIES,),
    architectures=("PatchTSTForPrediction", "TimesFmModelForPrediction"),
    engine=declare.BATCH,
    runner="assay_tasks_extra.time_series_forecasting.runner:ForecastRunner",
    unit=declare.Unit.POINTS,
    input_schema=ForecastInputs,
    option_schema=ForecastOptions,
    result_type=Forecast,
    endpoints=(
        declare.Endpoint(
            "/v1/tasks/time-series-forecasting",
            read_forecast,
            named=True,
            request=ForecastRequest,
            summary="Chronos' shape: `{inputs, parameters}`; mean and quantiles of the next steps.",
        ),
    ),
    sample={
        "inputs": [{"target": SAMPLE, "start": "1949-01-01", "item_id": "passengers"}],
        "parameters": {"prediction_length": 12, "quantile_levels": [0.1, 0.5, 0.9], "freq": "MS"},
    },
    playground=declare.Playground(
        body={
            "inputs": [{"target": "$numbers"}],
            "parameters": {"prediction_length": 12, "quantile_levels": [0.1, 0.5, 0.9]},
        },
        text=", ".join(map(str, SAMPLE)),
    ),
    row=NamedSeries,
    row_input=row_input,
    examples=(
        {
            "name": "passengers",
            "series": {"start": "1949-01-01", "frequency": "MS", "values": SAMPLE},
            "horizon": 12,
        },
        {
            "name": "visits",
            "series": {
                "start": "2026-03-02",
                "frequency": "D",
                "values": [310, 322, 305, 298, 281, 120, 96, 315, 330, 309, 301, 290, 131, 99],
            },
            "horizon": 7,
        },
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="assay_tasks_extra.time_series_forecasting.fine_tune:train",
            hyperparameters=TrainingHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="assay_tasks_extra.time_series_forecasting.score:score",
        metrics=(
            declare.Metric("mase", "MASE", higher_is_better=False),
            declare.Metric(
                "relative_error", "Error relative to seasonal naive", higher_is_better=False
            ),
            declare.Metric("coverage_80", "Coverage of the 80 % range"),
        ),
        primary_metric="relative_error",
        uses_training_rows=True,
    ),
)
