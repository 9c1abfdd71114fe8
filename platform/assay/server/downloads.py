"""Downloads of stored files: they take minutes, so they are limited apart from other requests."""

from __future__ import annotations

from assay.gateway.http.asgi import Message

_HEADER = "X-Assay-Ungated"
_NAME = _HEADER.lower().encode()


def ungated(holder: str) -> dict[str, str]:
    """Return the header of a response that no longer needs the database or a thread of Django. The
    response leaves the gate and counts as a download of `holder`. The header is not sent.
    """
    return {_HEADER: holder}


def pop_holder(message: Message) -> str | None:
    """Remove that header from the start of a response; return its holder, if any."""
    holder = None
    headers = []
    for name, value in message["headers"]:
        if name.lower() == _NAME:
            holder = value.decode("latin-1")
        else:
            headers.append((name, value))
    message["headers"] = headers
    return holder
