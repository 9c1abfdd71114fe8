"""Limits on request bodies for Django that hold before a byte of one is read: by path, by size."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.urls import Resolver404, resolve

from assay.api.parsers import MULTIPART_OVERHEAD
from assay.gateway.http.asgi import Scope, header
from assay.server.gate import RETRY_AFTER_S
from governance.errors import InvalidInput, TooLarge, Unavailable

# A body that is read before its sender is known. It stays in memory.
UNKNOWN_MAX = 64 * 1024
# What describes a body; a request whose body is not read is handed on without it.
_OF_BODIES = frozenset({b"content-length", b"content-type", b"transfer-encoding", b"expect"})


@dataclass(frozen=True, slots=True)
class Allowance:
    """Limit of a body in bytes. A view that `asks` is asked before one over `UNKNOWN_MAX` is
    read."""

    limit: int
    asks: bool = False


NOTHING = Allowance(0)


def allowance_of(path: str) -> Allowance:
    """The allowance of the view at `path`; nothing where no view is.

    A view takes more than others by naming a setting in `upload_limit`.
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


def no_room() -> Unavailable:
    """The refusal of a body that the disk has no room for."""
    return Unavailable(
        "Bodies that are being received fill the room on the disk.",
        code="overloaded",
        hint="Nothing was changed. Try again in a few seconds.",
        retry_after=RETRY_AFTER_S,
    )


def without_body(scope: Scope) -> Scope:
    """The request as if it had been sent without its body."""
    kept = [(name, value) for name, value in scope["headers"] if name not in _OF_BODIES]
    return {**scope, "headers": kept}
