"""Types of time-series forecasting: rows of data, inputs, options and results."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from assay.plugins import declare

MAX_SERIES = 64
MAX_HORIZON = 1_024
DEFAULT_HORIZON = 10
DEFAULT_LEVELS = (0.1, 0.5, 0.9)
# Maximum number of measured forecasts of each series; they are consecutive and do not overlap.
ORIGINS = 6

Level = Annotated[float, Field(ge=0.01, le=0.99, allow_inf_nan=False)]
Levels = Annotated[list[Level], Field(min_length=1, max_length=19)]
Horizon = Annotated[int, Field(ge=1, le=MAX_HORIZON)]
History = Annotated[
    list[declare.Observation],
    Field(min_length=declare.MIN_SERIES_VALUES, max_length=declare.MAX_SERIES_VALUES),
]


class NamedSeries(BaseModel):
    """One series. `horizon` is the number of steps that an evaluation forecasts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=100)
    series: declare.Series
    horizon: Horizon = 12


class ForecastInputs(declare.Inputs):
    """Histories to continue, oldest value first; all have the same `frequency`."""

    histories: Annotated[list[History], Field(min_length=1, max_length=MAX_SERIES)]
    frequency: declare.Frequency | None = None


class ForecastOptions(declare.Options):
    """Steps to forecast, and the quantiles to return. A history that exceeds the model's context is
    refused, or loses its start if `truncate` allows it."""

    prediction_length: Horizon = DEFAULT_HORIZON
    quantile_levels: Levels = Field(default_factory=lambda: list(DEFAULT_LEVELS))
    truncate: Literal["none", "start"] = "none"

    def cutting(self) -> Self:
        return self.model_copy(update={"truncate": "start"})


class Forecast(TypedDict):
    """The forecast of one history, step by step. `quantiles` has one list for each requested level,
    in that order."""

    mean: list[float]
    quantiles: list[list[float]]
