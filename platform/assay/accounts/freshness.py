"""Time and method of the last identity check in this session."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from allauth.account.internal.flows.login import get_authentication_records
from django.http import HttpRequest

from assay.accounts.personas import personas_allowed
from governance.people.credentials import has_factor
from governance.people.proof import FRESH, LOCAL, METHODS
from governance.principals import Proof

# A session left open may read; to change how the account is signed in to, it must be this fresh.
FRESH_S = FRESH.total_seconds()
# How a persona's click stands in the session.
DEMONSTRATION = "demonstration"


def proved_at(request: HttpRequest) -> float:
    """Return the time of the last factor in seconds since the epoch; 0 without one."""
    return max((r["at"] for r in get_authentication_records(request, request.user)), default=0.0)


def is_fresh(request: HttpRequest) -> bool:
    """Return whether the person proved who they are within `FRESH_S`: by a second factor when the
    account has one, for a password may have leaked.
    """
    if has_factor(request.user.pk or 0):
        proof = session_proof(request)
        return proof is not None and time.time() - proof.at.timestamp() < FRESH_S
    return time.time() - proved_at(request) < FRESH_S


def session_proof(request: HttpRequest) -> Proof | None:
    """The newest second factor of this session. Passwords and single sign-ons are none."""
    newest = None
    for record in get_authentication_records(request, request.user):
        method = _second_factor(request, record)
        if method in METHODS and (newest is None or record["at"] >= newest["at"]):
            newest = {"method": method, "at": record["at"]}
    if newest is None:
        return None
    return Proof(newest["method"], datetime.fromtimestamp(newest["at"], UTC))


def _second_factor(request: HttpRequest, record: dict[str, Any]) -> str:
    if record["method"] == "mfa":
        return str(record.get("type", ""))
    if record["method"] == DEMONSTRATION and personas_allowed(request):
        return LOCAL
    return ""
