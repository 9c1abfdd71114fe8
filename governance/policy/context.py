"""Context of a decision: time and client address. Imports no Django.

Rules read it as `context.<name>`. A condition on an attribute that was not stated is an error,
which denies.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from governance.principals import request_context

# Classifications that a caller may declare for its data, from least to most sensitive.
CLASSIFICATIONS = ("public", "internal", "confidential", "restricted")
UNDECLARED_CLASSIFICATION = "internal"


def base_context(client_address: str | None = None, *, now: float | None = None) -> dict[str, Any]:
    """Return `time` ("HH:MM", UTC), `weekday` (1 is Monday, 7 Sunday) and `client_address`.

    `client_address` defaults to that of the current request; without one, it is omitted. `now` is
    in seconds since the epoch.
    """
    moment = time.gmtime(now)
    context: dict[str, Any] = {
        "time": f"{moment.tm_hour:02d}:{moment.tm_min:02d}",
        "weekday": moment.tm_wday + 1,
    }
    if client_address is None:
        client_address = request_context.get().client_address
    if client_address:
        context["client_address"] = client_address
    return context


def with_base(context: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `base_context()`, overridden by `context`."""
    return {**base_context(), **(context or {})}


# The least demanding request for each action whose requests state attributes.
_REQUESTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "deployment:invoke": {"classification": CLASSIFICATIONS[0], "tokens": 1},
        "key:create": {"lifetime_days": 1},
        "key:rotate": {"lifetime_days": 1},
    }
)


def probing_context(action: str | None = None) -> dict[str, Any]:
    """Return a context for checking in advance whether `action` is possible, as a page does before
    it offers a button: that of the least demanding request, or of all actions' if none is given.
    """
    requests = _REQUESTS.values() if action is None else [_REQUESTS.get(action, {})]
    return base_context() | {name: value for each in requests for name, value in each.items()}
