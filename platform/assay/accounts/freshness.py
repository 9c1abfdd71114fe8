"""How long ago somebody proved who they are in this session."""

from __future__ import annotations

import time

from allauth.account.internal.flows.login import get_authentication_records
from django.http import HttpRequest

# A session left open may read; to change how the account is signed in to, it must be this fresh.
FRESH_S = 10 * 60


def proved_at(request: HttpRequest) -> float:
    """When the last factor was given, in seconds since the epoch; 0 when none was."""
    return max((r["at"] for r in get_authentication_records(request, request.user)), default=0.0)


def is_fresh(request: HttpRequest) -> bool:
    """Whether a factor was given within `FRESH_S`."""
    return time.time() - proved_at(request) < FRESH_S
