"""Limits on request bodies for Django by path and size, enforced before a body is read."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.urls import Resolver404, resolve

from assay.api.parsers import MULTIPART_OVERHEAD
from assay.gateway.http.asgi import Scope, header
from assay.server.gate import RETRY_AFTER_S
from governance.errors import InvalidInput, TooLarge, Unavailable

# Maximum of a body that is read before its sender is known. It stays in memory.
UNKNOWN_MAX = 64 * 1024
# Headers that describe a body; they are removed from a request whose body is not read.
_OF_BODIES = frozenset({b"content-length", b"content-type", b"transfer-encoding", b"expect"})


@dataclass(frozen=True, slots=True)
class Allowance:
    """Limit of a body in bytes. If `asks`, the view must permit a body over `UNKNOWN_MAX` before it
    is read."""

    limit: int
    asks: bool = False


NOTHING = Allowance(0)


def allowance_of(path: str) -> Allowance:
    """Return the allowance of the view at `path`; `NOTHING` if there is none.

    A view accepts larger bodies by naming a setting in `upload_limit`.
    """
    try:
        view = resolve(path).func
    except Resolver404:
        return NOTHING
    view_class = getattr(view, "view_class", None)
    asks = hasattr(view_class, "allow_body")
    name = getattr(view_class, "upload_limit", None)
    if name is None:
        return Allowance(settings.DATA_UPLOAD_MAX_MEMORY_SIZE, asks)
    return Allowance(getattr(settings, name) + MULTIPART_OVERHEAD, asks)


def declared_length(scope: Scope) -> int | None:
    """Return the `Content-Length`; None if the body is chunked, 0 if there is none.

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
    """Return the refusal of a body over `limit` bytes."""
    return TooLarge(f"The body is larger than {limit:,} bytes.")


def no_room() -> Unavailable:
    """Return the refusal of a body that the disk has no room for."""
    return Unavailable(
        "The disk has no room for more uploads at present.",
        code="overloaded",
        hint="Nothing was changed. Try again in a few seconds.",
        retry_after=RETRY_AFTER_S,
    )


def without_body(scope: Scope) -> Scope:
    """Return the request without the headers of its body."""
    headers = [(name, value) for name, value in scope["headers"] if name not in _OF_BODIES]
    return {**scope, "headers": headers}
