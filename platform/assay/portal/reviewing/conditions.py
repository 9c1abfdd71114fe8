"""Conditions in the decision box: those of other reviewers, and the form for one's own."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

from django.http import HttpRequest, QueryDict

from assay.portal.reviewing.parts import Page
from governance.errors import InvalidInput, WrongState
from registry.releases.conditions import (
    OBLIGATION_MAX,
    OBLIGATIONS_MAX,
    conditions_agreed,
    requested_conditions,
)
from registry.versions.models import VersionKind
from registry.versions.weights import weights_version

PREFIX = "condition_"
# Bounds on the fields of a refused form that are shown again.
FIELDS_MAX, VALUES_MAX, LENGTH_MAX = 120, 100, (OBLIGATION_MAX + 2) * OBLIGATIONS_MAX

Typed = dict[str, list[str]]


def conditions(page: Page) -> dict[str, Any]:
    """Return the conditions of this round, their combination, and the typed form."""
    typed = typed_conditions(page.screen.request)
    votes = requested_conditions(page.review)
    return {
        "asked": [(vote.person, each.words()) for vote, each in votes],
        "agreed": _agreed(page) if len(votes) > 1 else [],
        "condition_departments": sorted(page.release.departments.all(), key=lambda d: d.name),
        "condition_hosted": weights_version(page.release.version).kind == VersionKind.HOSTED,
        "condition_typed": {name: values[0] for name, values in typed.items() if values},
        "condition_only": typed.get(f"{PREFIX}departments", []),
    }


def _agreed(page: Page) -> list[str]:
    try:
        return conditions_agreed(page.review).words()
    except WrongState as error:
        return [error.message]


def typed_conditions(request: HttpRequest) -> Typed:
    """Return the typed fields of conditions, within bounds."""
    names = [name for name in request.POST if name.startswith(PREFIX) and len(name) <= 80]
    return {
        name: [value[:LENGTH_MAX] for value in request.POST.getlist(name)[:VALUES_MAX]]
        for name in names[:FIELDS_MAX]
        if any(request.POST.getlist(name))
    }


def submitted_conditions(post: QueryDict) -> dict[str, Any]:
    """Return the form as `release_decide` takes it; empty if nothing was filled in.

    Raises:
        InvalidInput: a number or a date is invalid.
    """
    rates = {
        name.removeprefix(f"{PREFIX}rate_"): _whole(text, name)
        for name in post
        if name.startswith(f"{PREFIX}rate_") and (text := post.get(name, "").strip())
    }
    lines = post.get(f"{PREFIX}obligations", "").splitlines()
    rate = post.get(f"{PREFIX}rate", "").strip()
    values = {
        "departments": post.getlist(f"{PREFIX}departments"),
        "until": _midnight(post.get(f"{PREFIX}until", "").strip()),
        "requests_per_minute": _whole(rate, f"{PREFIX}rate") if rate else None,
        "requests_per_minute_of": rates,
        "obligations": [line.strip() for line in lines if line.strip()],
        "shadow_only": f"{PREFIX}shadow_only" in post or None,
        "reviewers_read_content": f"{PREFIX}reviewers_read_content" in post or None,
        "suspend_on_difference": f"{PREFIX}suspend_on_difference" in post or None,
    }
    return {name: value for name, value in values.items() if value or value == 0}


def _whole(text: str, name: str) -> int:
    if not (text.strip().isascii() and text.strip().isdecimal() and len(text) <= 9):
        raise InvalidInput(
            f"{text[:20]} is not a number of requests per minute.",
            fields={name: ["must be a whole number"]},
        )
    return int(text)


def _midnight(text: str) -> datetime | None:
    """Return the start of the day, UTC."""
    if not text:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError as error:
        raise InvalidInput(
            f"{text[:20]} is not a date.",
            fields={f"{PREFIX}until": ["must be a date such as 2027-03-01"]},
        ) from error
