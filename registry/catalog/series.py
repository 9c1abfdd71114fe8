"""Time series: the column type of dataset rows, and the dates of time steps.

A series is evenly spaced: a start, a frequency and values without gaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from registry.catalog.columns import COLUMN

# Minimum history of a forecast: one value less than the shortest series in a dataset.
MIN_VALUES = 3
MAX_VALUES = 20_000
# Sums of squares of larger values are not exact integers in float64, and overflow float32.
LARGEST = 1e15

# Names from pandas. A step is a number of months, or a fixed duration.
Frequency = Literal["min", "15min", "30min", "h", "D", "W", "MS", "QS", "YS"]
FREQUENCY_WORDS: dict[str, str] = {
    "min": "minute",
    "15min": "quarter of an hour",
    "30min": "half hour",
    "h": "hour",
    "D": "day",
    "W": "week",
    "MS": "month",
    "QS": "quarter",
    "YS": "year",
}
_MONTHS = {"MS": 1, "QS": 3, "YS": 12}
_STEPS = {
    "min": timedelta(minutes=1),
    "15min": timedelta(minutes=15),
    "30min": timedelta(minutes=30),
    "h": timedelta(hours=1),
    "D": timedelta(days=1),
    "W": timedelta(weeks=1),
}
# Steps of the usual cycle: one day for steps within a day, a week for days, else a year.
_SEASONS = {"min": 1440, "15min": 96, "30min": 48, "h": 24, "D": 7, "W": 52, "MS": 12, "QS": 4}


def _checked_moment(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        raise ValueError("write the date and time without a time zone")
    return text


Moment = Annotated[
    str,
    Field(min_length=10, max_length=26, pattern=r"^\d{4}-\d{2}-\d{2}"),
    AfterValidator(_checked_moment),
]
Observation = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]


class Series(BaseModel):
    """One evenly spaced series. `season` is the number of steps of its cycle if it differs from the
    usual cycle of the frequency, such as 11 for yearly sunspots."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, json_schema_extra={COLUMN: "series"}
    )

    start: Moment
    frequency: Frequency
    values: Annotated[list[Observation], Field(min_length=MIN_VALUES + 1, max_length=MAX_VALUES)]
    season: Annotated[int, Field(ge=1, le=10_000)] | None = None


def season_of(series: Mapping[str, Any]) -> int:
    """Return the number of steps of a series' cycle; 1 for a series without a cycle."""
    return int(series.get("season") or _SEASONS.get(series["frequency"], 1))


def moment_after(start: str, frequency: str, steps: int) -> str:
    """Return the date, or date and time, `steps` after `start`.

    Raises:
        OverflowError: the date is after the year 9999.
    """
    moment = datetime.fromisoformat(start)
    if frequency in _MONTHS:
        months = moment.year * 12 + moment.month - 1 + steps * _MONTHS[frequency]
        if months >= 10_000 * 12:
            raise OverflowError("date value out of range")
        # Every month has a 28th, but not every month has later days.
        moment = moment.replace(year=months // 12, month=months % 12 + 1, day=min(moment.day, 28))
    else:
        moment += steps * _STEPS[frequency]
    by_day = len(start) == 10 and frequency not in ("min", "15min", "30min", "h")
    return moment.date().isoformat() if by_day else moment.isoformat()
