"""Middleware of all Django requests: request ID, client address, and acting principal."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import LazyObject, SimpleLazyObject

from assay.access_log import log_request
from assay.accounts.freshness import session_proof
from assay.addresses import forwarded_address
from governance.people.selectors import principal_for_person
from governance.principals import ANONYMOUS, Principal, serving

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
REQUEST_ID_HEADER = "x-request-id"
# Request IDs that the platform uses for its own work.
OWN_WORK = re.compile(r"bootstrap|(alarm|deployment|export|job|quota|release)-")


def client_address(request: HttpRequest) -> str:
    """Return the peer's address, or the one that a trusted proxy states in `X-Forwarded-For`.

    The header is read from the right, past every address in `settings.TRUSTED_PROXIES`; values that
    a client puts in front are ignored.
    """
    peer = str(request.META.get("REMOTE_ADDR") or "")
    forwarded = [request.headers.get("X-Forwarded-For", "")]
    return forwarded_address(peer, forwarded, settings.TRUSTED_PROXIES)


def request_id(request: HttpRequest) -> str:
    """Return the caller's request ID if it is valid and not one of the platform's own; otherwise a
    new one.
    """
    requested = request.headers.get(REQUEST_ID_HEADER, "")
    if REQUEST_ID.fullmatch(requested) and not OWN_WORK.match(requested):
        return requested
    return f"req_{secrets.token_hex(12)}"


def session_principal(request: HttpRequest) -> Principal:
    """Return the person signed in to this session; `ANONYMOUS` if there is none, or the account is
    inactive.
    """
    person = getattr(request, "user", None)
    if person is None or not person.is_authenticated or not person.is_active:
        return ANONYMOUS
    return principal_for_person(cast(Any, person), proof=session_proof(request))


def principal_of(request: HttpRequest) -> Principal:
    """Return the acting principal, resolved; `ANONYMOUS` if the caller is not signed in."""
    principal: Any = getattr(request, "principal", ANONYMOUS)
    if isinstance(principal, LazyObject):
        # The policy copies principals with dataclasses.replace, which needs the actual object.
        bool(principal)
        principal = principal._wrapped
    return cast(Principal, principal)


class RequestContextMiddleware:
    """Sets `governance.principals.request_context` during the view, and `request.principal`."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        # Lazy: many requests do not query the database for it.
        request.principal = SimpleLazyObject(lambda: session_principal(request))  # type: ignore[attr-defined]
        own_id, started = request_id(request), time.perf_counter()
        with serving(own_id, client_address(request)):
            response = self.get_response(request)
            match = request.resolver_match
            route = "other" if match is None else f"/{match.route}"
            seconds = time.perf_counter() - started
            log_request(request.method or "", route, response.status_code, seconds)
        response.headers[REQUEST_ID_HEADER] = own_id
        # No proxy may give one person's page to another, and no browser may show an old one.
        response.headers.setdefault("Cache-Control", "private, no-cache")
        return response
