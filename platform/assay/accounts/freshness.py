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

# Maximum age of the last identity check for changes of sign-in methods. An older session may read.
FRESH_S = FRESH.total_seconds()
# Authentication method of the demonstration's personas in the session.
DEMONSTRATION = "demonstration"


def proved_at(request: HttpRequest) -> float:
    """Return the time of the last factor in seconds since the epoch; 0 if there is none."""
    return max((r["at"] for r in get_authentication_records(request, request.user)), default=0.0)


def is_fresh(request: HttpRequest) -> bool:
    """Return true if the person verified their identity within `FRESH_S`. If the account has a
    second factor, that one counts, since a password may have leaked.
    """
    if has_factor(request.user.pk or 0):
        proof = session_proof(request)
        return proof is not None and time.time() - proof.at.timestamp() < FRESH_S
    return time.time() - proved_at(request) < FRESH_S


def session_proof(request: HttpRequest) -> Proof | None:
    """Return the session's newest second factor. Passwords and single sign-on do not count."""
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
