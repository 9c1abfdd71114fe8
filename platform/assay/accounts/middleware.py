"""Record session activity, and restrict sessions that still need a second factor."""

from __future__ import annotations

import time
from collections.abc import Callable

from allauth.usersessions.models import UserSession
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from assay.accounts.adapters import SEEN, UNKNOWN_ADDRESS
from assay.accounts.factor_requirement import OWES
from assay.middleware import client_address
from governance.principals import ANONYMOUS

# Minimum interval between two writes, in seconds, so that most requests need none.
GRAIN_S = 5 * 60
# Other account pages are excluded: an access token created there would evade the requirement.
SETTING_UP = (
    "/account/authenticator",
    "/account/passkeys",
    "/account/confirm",
    "/sign-in/link",
    "/sign-out",
    "/static/",
)


class SessionActivityMiddleware:
    """Updates `last_seen_at`, address and device of sessions that began with our sign-in.

    A session that still needs a second factor has access only to the pages that set it up; the API
    treats it as anonymous.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.session.session_key and SEEN in request.session:
            now = int(time.time())
            if now - int(request.session[SEEN]) >= GRAIN_S and request.user.is_authenticated:
                request.session[SEEN] = now
                note(request)
            if request.session.get(OWES) and request.user.is_authenticated:
                if request.path.startswith("/api/"):
                    request.principal = ANONYMOUS  # type: ignore[attr-defined]
                elif request.path != "/account" and not request.path.startswith(SETTING_UP):
                    return redirect("portal:account_authenticator")
        return self.get_response(request)


def note(request: HttpRequest) -> None:
    """Update the session's row, with one query."""
    UserSession.objects.filter(session_key=request.session.session_key).update(
        last_seen_at=timezone.now(),
        ip=client_address(request) or UNKNOWN_ADDRESS,
        user_agent=request.headers.get("User-Agent", "")[:200],
    )
