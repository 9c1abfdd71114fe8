"""POST /v1/tasks/time-series-forecasting/{model}, in the shape of Amazon's Chronos endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from assay.plugins import declare
from assay_tasks_extra.time_series_forecasting.schema import (
    DEFAULT_HORIZON,
    DEFAULT_LEVELS,
    MAX_SERIES,
    ForecastInputs,
    ForecastOptions,
    History,
    Horizon,
    Levels,
)

# Maximum observations and steps in all series of a request.
MAX_POINTS = 100_000


class SeriesInput(declare.Strict):
    """One history. `start` is the time of its first value; with the parameter `freq` it dates the
    forecast."""

    target: History
    start: declare.Moment | None = None
    item_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    past_covariates: None = None
    future_covariates: None = None


class Parameters(declare.Strict):
    """Steps to forecast, quantiles to return, and the frequency of all series. `truncate` START
    cuts the start of a series that exceeds the model's context; otherwise it is refused.
    """

    prediction_length: Horizon = DEFAULT_HORIZON
    quantile_levels: Levels = Field(default_factory=lambda: list(DEFAULT_LEVELS))
    freq: declare.Frequency | None = None
    truncate: Literal["NONE", "START"] | None = None

    @field_validator("quantile_levels")
    @classmethod
    def _ascending(cls, levels: list[float]) -> list[float]:
        if any(low >= high for low, high in pairwise(levels)):
            raise ValueError("name each level once, in ascending order")
        return levels


class ForecastRequest(declare.Strict):
    """Histories to continue."""

    inputs: Annotated[list[SeriesInput], Field(min_length=1, max_length=MAX_SERIES)]
    parameters: Parameters = Parameters()


def read_forecast(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request. Raises RequestInvalid."""
    request = declare.parse(ForecastRequest, body.data)
    steps = request.parameters.prediction_length
    points = sum(len(each.target) + steps for each in request.inputs)
    if points > MAX_POINTS:
        raise declare.RequestInvalid(
            f"The request has {points:,} points, observations and steps to forecast together; at "
            f"most {MAX_POINTS:,} are accepted. Send fewer or shorter series.",
            param="inputs",
        )
    return declare.Plan(
        model=name,
        inputs=ForecastInputs(
            histories=[each.target for each in request.inputs], frequency=request.parameters.freq
        ),
        renderer=PredictionsRenderer(
            names=[each.item_id for each in request.inputs],
            starts=_starts(request),
            levels=request.parameters.quantile_levels,
        ),
        tokens=0,
        prompt_tokens=0,
        units=points,
        options=ForecastOptions(
            prediction_length=steps,
            quantile_levels=request.parameters.quantile_levels,
            truncate="start" if request.parameters.truncate == "START" else "none",
        ),
    )


def _starts(request: ForecastRequest) -> list[str | None]:
    """Return the time of each forecast's first step, or None if unknown."""
    freq = request.parameters.freq
    starts: list[str | None] = []
    for number, each in enumerate(request.inputs):
        if each.start is None:
            starts.append(None)
            continue
        if freq is None:
            raise declare.RequestInvalid(
                f"inputs[{number}].start is a time, but parameters.freq, the distance between its "
                "values, is missing. Send both, or neither.",
                param="parameters.freq",
                code="missing_parameter",
            )
        try:
            # The last step must have a valid date too, for callers that compute its time.
            declare.moment_after(
                each.start, freq, len(each.target) + request.parameters.prediction_length
            )
            starts.append(declare.moment_after(each.start, freq, len(each.target)))
        except OverflowError:
            raise declare.RequestInvalid(
                f"inputs[{number}] reaches beyond the year 9999.", param=f"inputs[{number}].start"
            ) from None
    return starts


@dataclass(slots=True)
class PredictionsRenderer:
    """{"predictions": [{"mean", one list for each level, "item_id", "start"}]}."""

    names: Sequence[str | None]
    starts: Sequence[str | None]
    levels: Sequence[float]

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        return {
            "predictions": [
                {
                    "mean": forecast["mean"],
                    **{
                        f"{level:g}": values
                        for level, values in zip(self.levels, forecast["quantiles"], strict=True)
                    },
                    **({"item_id": name} if name is not None else {}),
                    **({"start": start} if start is not None else {}),
                }
                for forecast, name, start in zip(
                    answer.results, self.names, self.starts, strict=True
                )
            ],
            **declare.cut_counts(answer),
        }
