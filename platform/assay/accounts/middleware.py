"""Noting that a session is in use: when, and from where."""

from __future__ import annotations

import time
from collections.abc import Callable

from allauth.usersessions.models import UserSession
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from assay.accounts.adapters import SEEN, UNKNOWN_ADDRESS
from assay.middleware import client_address

# Written at most once in this time, so that a page costs no write.
GRAIN_S = 5 * 60


class SessionActivityMiddleware:
    """Keeps `last_seen_at`, address and device of a session that our sign-in began."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.session.session_key and SEEN in request.session:
            now = int(time.time())
            if now - int(request.session[SEEN]) >= GRAIN_S and request.user.is_authenticated:
                request.session[SEEN] = now
                note(request)
        return self.get_response(request)


def note(request: HttpRequest) -> None:
    """One update of the session's row."""
    UserSession.objects.filter(session_key=request.session.session_key).update(
        last_seen_at=timezone.now(),
        ip=client_address(request) or UNKNOWN_ADDRESS,
        user_agent=request.headers.get("User-Agent", "")[:200],
    )
