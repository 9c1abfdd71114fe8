"""Opening an event's boxes. Does not import Django: runs anywhere, offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

ZERO_NONCE = bytes(12)
# The first bytes of every box's content. ChaCha20-Poly1305 alone does not bind a box to one key: a
# box could be made to have two contents (https://eprint.iacr.org/2020/1456, the padding fix).
COMMITMENT = bytes(32)

Body = dict[str, Any]


def open_box(box: bytes, key: bytes) -> Body:
    """Return the content of the box.

    Raises:
        ValueError: it was encrypted with another key, or was changed.
    """
    try:
        clear = ChaCha20Poly1305(key).decrypt(ZERO_NONCE, box, None)
    except InvalidTag as error:
        raise ValueError("the box was changed, or belongs to another key") from error
    if not clear.startswith(COMMITMENT):
        raise ValueError("the box is not bound to its key")
    content = json.loads(clear[len(COMMITMENT) :])
    if not isinstance(content, dict):
        raise ValueError("the box does not contain a JSON object")
    return content


def merged(body: Body, over: Mapping[str, Any]) -> Body:
    """Return `body` with its blanks filled from the content of a box, object by object.

    Raises:
        ValueError: the box contradicts a value sealed in clear, so the event would change its
            meaning if the box was opened, or if its key was erased.
    """
    result = dict(body)
    for name, value in over.items():
        below = result.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            result[name] = merged(below, value)
        elif below in (None, "", value):
            result[name] = value
        else:
            raise ValueError(f"the box has another {name} than its event")
    return result
