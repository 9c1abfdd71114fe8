"""Downloads of stored files, which take minutes, apart from all other requests."""

from __future__ import annotations

from assay.gateway.http.asgi import Message

_HEADER = "X-Assay-Ungated"
_NAME = _HEADER.lower().encode()


def ungated(holder: str) -> dict[str, str]:
    """Return the header of a response that needs neither the database nor a thread of Django any
    more: it leaves the gate, and counts with the downloads of `holder`. No client sees it.
    """
    return {_HEADER: holder}


def taken_out(message: Message) -> str | None:
    """Remove the header from the start of a response; return the holder that it named, if any."""
    found = None
    kept = []
    for name, value in message["headers"]:
        if name.lower() == _NAME:
            found = value.decode("latin-1")
        else:
            kept.append((name, value))
    message["headers"] = kept
    return found
