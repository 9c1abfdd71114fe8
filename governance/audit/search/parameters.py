"""Filters as text, in URLs and saved filters: read strictly, within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal, get_args

from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from governance.audit.search.filters import KINDS, TEXT_MAX, EventFilter
from governance.bounds import NOT_ON_A_LINE
from governance.errors import InvalidInput

Outcome = Literal["allowed", "denied", "failed"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
Span = Literal["1h", "24h", "7d", "30d"]
# Spans of time that end now.
WITHIN: dict[str, timedelta] = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
PARAMETERS = (*(field.name for field in fields(EventFilter)), "within")
_CHOICES = {"outcome": OUTCOMES, "actor_kind": KINDS, "within": tuple(WITHIN)}


def parameters_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the nonempty parameters, without surrounding spaces.

    Raises:
        InvalidInput: a parameter is unknown, too long or invalid.
    """
    wrong: dict[str, list[str]] = {}
    parameters: dict[str, str] = {}
    for name, value in values.items():
        problem = _problem(name, value)
        if problem:
            wrong[str(name)[:40]] = [problem]
        elif value.strip():
            parameters[name] = value.strip()
    # JSON Schema cannot bound dates.
    malformed = bool(wrong.keys() - {"since", "until"})
    if "within" in parameters and parameters.keys() & {"since", "until"}:
        wrong["within"] = ["Give either this or dates."]
    if wrong:
        raise InvalidInput(
            "The filter cannot be used.",
            hint="See what is wrong.",
            fields=wrong,
            malformed=malformed,
        )
    return parameters


def _problem(name: str, value: Any) -> str:
    if name not in PARAMETERS:
        return f"Unknown filter. Known filters: {', '.join(PARAMETERS)}."
    if not isinstance(value, str):
        return "Not text."
    if len(value) > TEXT_MAX:
        return f"Longer than {TEXT_MAX} characters."
    text = value.strip()
    if not text:
        return ""
    if NOT_ON_A_LINE.search(text):
        return "Contains an invalid character."
    if name in _CHOICES and text not in _CHOICES[name]:
        return f"Not one of {', '.join(_CHOICES[name])}."
    if name == "policy_version" and not (text.isascii() and text.isdigit() and len(text) < 10):
        return "Not the number of a policy."
    if name in ("since", "until") and moment_of(text, last=False) is None:
        return "Not a date, or a date and time."
    return ""


def event_filter_of(parameters: Mapping[str, str], now: datetime | None = None) -> EventFilter:
    """Return the filter for the result of `parameters_of`; a time span ends at `now`."""
    values: dict[str, Any] = {name: value for name, value in parameters.items() if value}
    within = values.pop("within", None)
    if within is not None:
        values["since"] = (now or timezone.now()) - WITHIN[within]
    elif "since" in values:
        values["since"] = moment_of(values["since"], last=False)
    if "until" in values:
        values["until"] = moment_of(values["until"], last=True)
    if "policy_version" in values:
        values["policy_version"] = int(values["policy_version"])
    return EventFilter(**values)


def moment_of(text: str, *, last: bool) -> datetime | None:
    """Return a moment. A date becomes the start of its day, or with `last` of the next day."""
    try:
        day = parse_date(text)
        moment = parse_datetime(text) if day is None else None
        if day is not None:
            moment = datetime.combine(day, time.min) + timedelta(days=1 if last else 0)
    except (ValueError, OverflowError):
        return None
    if moment is None or not 1970 < moment.year < 9999:
        return None
    return moment if timezone.is_aware(moment) else moment.replace(tzinfo=UTC)
