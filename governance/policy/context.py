"""Time and place of a decision. Knows no Django.

Rules name it as `context.<name>`. A condition on an attribute that was not stated is an error,
which denies.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from governance.principals import request_context

# What a caller may declare of the data that it sends, from least to most sensitive.
CLASSIFICATIONS = ("public", "internal", "confidential", "restricted")
UNDECLARED_CLASSIFICATION = "internal"


def base_context(client_address: str | None = None, *, now: float | None = None) -> dict[str, Any]:
    """`time` ("HH:MM", UTC), `weekday` (1 is Monday, 7 Sunday) and `client_address`.

    `client_address` is that of the request being served when it is not given, and is left out when
    there is none. `now` is in seconds since the epoch.
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
    """`context` over `base_context()`: what the caller states wins."""
    return {**base_context(), **(context or {})}


# Minimum attributes of the request that each of these actions states.
_REQUESTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "deployment:invoke": {"classification": CLASSIFICATIONS[0], "tokens": 1},
        "key:create": {"lifetime_days": 1},
        "key:rotate": {"lifetime_days": 1},
    }
)


def probing_context(action: str | None = None) -> dict[str, Any]:
    """For asking beforehand, as a page does that offers only what would work: the least that a
    request for `action` may ask for, here and now; that of any when none is named.
    """
    asked = _REQUESTS.values() if action is None else [_REQUESTS.get(action, {})]
    return base_context() | {name: value for each in asked for name, value in each.items()}
