"""The notice that one key changed: it spares the gateways a reading of everything.

`key:<public id>` on `SNAPSHOT_CHANNEL`. Knows no Django.
"""

from __future__ import annotations

import re

_NOTICE = re.compile(r"key:([A-Za-z0-9]{1,16})")


def key_notice(public_id: str) -> str:
    """Return the message published when the key of that public ID has changed."""
    return f"key:{public_id}"


def key_in_notice(message: object) -> str | None:
    """The public id that a message names; None when it is about more than a key."""
    if not isinstance(message, bytes):
        return None
    found = _NOTICE.fullmatch(message.decode("latin-1"))
    return found[1] if found else None
