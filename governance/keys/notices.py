"""Notice of a changed key, so that gateways do not have to read everything again.

The message is `key:<public id>` on `SNAPSHOT_CHANNEL`. Does not import Django.
"""

from __future__ import annotations

import re

_NOTICE = re.compile(r"key:([A-Za-z0-9]{1,16})")


def key_notice(public_id: str) -> str:
    """Return the message for a change of the key with this public ID."""
    return f"key:{public_id}"


def key_in_notice(message: object) -> str | None:
    """Return the public ID in a message; None if the message is not about a single key."""
    if not isinstance(message, bytes):
        return None
    match = _NOTICE.fullmatch(message.decode("latin-1"))
    return match[1] if match else None
