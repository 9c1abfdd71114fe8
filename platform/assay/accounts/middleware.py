"""Noting that a session is in use; holding one to what it may do before its second factor."""

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

# Written at most once in this time, so that a page costs no write.
GRAIN_S = 5 * 60
# Not the rest of the account: an access token made there would outlive the requirement.
SETTING_UP = (
    "/account/authenticator",
    "/account/passkeys",
    "/account/confirm",
    "/sign-in/link",
    "/sign-out",
    "/static/",
)


class SessionActivityMiddleware:
    """Keeps `last_seen_at`, address and device of a session that our sign-in began.

    A session that still needs a second factor reaches only the screens that set it up; the API
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
    """One update of the session's row."""
    UserSession.objects.filter(session_key=request.session.session_key).update(
        last_seen_at=timezone.now(),
        ip=client_address(request) or UNKNOWN_ADDRESS,
        user_agent=request.headers.get("User-Agent", "")[:200],
    )
