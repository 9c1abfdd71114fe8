"""Downloads of stored files, which take minutes, apart from all other requests."""

from __future__ import annotations

from assay.gateway.http import Message

# A response with this header needs neither the database nor a thread of Django any more: it leaves
# the gate, and counts with the downloads. No client sees the header.
UNGATED = {"X-Assay-Ungated": "1"}
_NAME = next(iter(UNGATED)).lower().encode()


def taken_out(message: Message) -> bool:
    """Remove the header from the start of a response; return whether it was there."""
    headers = message["headers"]
    kept = [(name, value) for name, value in headers if name.lower() != _NAME]
    message["headers"] = kept
    return len(kept) < len(headers)
