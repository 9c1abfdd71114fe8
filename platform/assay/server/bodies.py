"""Limits on request bodies that hold before a byte of one is read: by path, by size, by time."""

from __future__ import annotations

import io
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, resolve

from assay.api.authentication import bearer_token
from assay.api.parsers import MULTIPART_OVERHEAD
from assay.gateway.http import BodySlow, Scope, header
from governance.errors import DomainError, InvalidInput, TooLarge
from governance.keys.selectors import principal_for_token
from workers.nodes.sessions import session_node

# What a body gains for each second of patience, beyond those that the settings grant.
LEAST_BYTES_PER_S = 16 * 1024
# Its callers have sessions of nodes.
_NODES = "/node/v1/"
# What describes a body; a request whose body is not read is handed on without it.
_OF_BODIES = frozenset({b"content-length", b"content-type", b"transfer-encoding", b"expect"})


@dataclass(frozen=True, slots=True)
class Allowance:
    """Limit of a body in bytes. Only a known caller gets more than the small limit."""

    limit: int

    @property
    def is_upload(self) -> bool:
        return self.limit > settings.DATA_UPLOAD_MAX_MEMORY_SIZE


NOTHING = Allowance(0)


def allowance_of(path: str) -> Allowance:
    """The allowance of the view at `path`; nothing where no view is.

    A view takes more than the small limit by naming a setting in `upload_limit`.
    """
    try:
        view = resolve(path).func
    except Resolver404:
        return NOTHING
    name = getattr(getattr(view, "view_class", None), "upload_limit", None)
    if name is None:
        return Allowance(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
    return Allowance(getattr(settings, name) + MULTIPART_OVERHEAD)


def declared_length(scope: Scope) -> int | None:
    """Return the `Content-Length`; None when the body comes in chunks, 0 when there is none.

    Raises:
        InvalidInput: it is not a number. The server refuses such requests itself.
    """
    if header(scope, b"transfer-encoding") is not None:
        return None
    text = header(scope, b"content-length") or b"0"
    if not text.isdigit():
        raise InvalidInput("Content-Length is not a number.")
    return int(text[:20])


def too_large(limit: int) -> TooLarge:
    """The refusal of a body over `limit` bytes."""
    return TooLarge(f"The body is larger than {limit:,} bytes.")


def due_s(received: int) -> float:
    """Seconds after its start at which a body of so many bytes until now is late."""
    return float(settings.WEB_BODY_TIMEOUT_S) + received / LEAST_BYTES_PER_S


def late() -> BodySlow:
    """The refusal of a body that takes too long."""
    return BodySlow(
        "The body did not arrive in time.",
        hint=f"It may take {settings.WEB_BODY_TIMEOUT_S} s, and a second more for each "
        f"{LEAST_BYTES_PER_S:,} bytes.",
    )


def without_body(scope: Scope) -> Scope:
    """The request as if it had been sent without its body."""
    kept = [(name, value) for name, value in scope["headers"] if name not in _OF_BODIES]
    return {**scope, "headers": kept}


def is_known(scope: Scope) -> bool:
    """Return whether the request carries a valid bearer token or session. Reads the database."""
    request = ASGIRequest(without_body(scope), io.BytesIO())
    try:
        if (token := bearer_token(request)) is not None:
            if request.path.startswith(_NODES):
                session_node(token)
            else:
                principal_for_token(token)
            return True
    except DomainError:
        return False
    SessionMiddleware(_unused).process_request(request)
    AuthenticationMiddleware(_unused).process_request(request)
    return bool(request.user.is_authenticated)


def _unused(request: HttpRequest) -> HttpResponse:
    raise AssertionError("no view is called to find out who asks")
