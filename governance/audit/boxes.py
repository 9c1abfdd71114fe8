"""Opening what stands in an event's boxes. Knows no Django: runs anywhere, offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

ZERO_NONCE = bytes(12)
# What every box begins with inside. ChaCha20-Poly1305 alone does not bind a box to one key: two
# contents could be made to share a box (https://eprint.iacr.org/2020/1456, the padding fix).
COMMITMENT = bytes(32)

Body = dict[str, Any]


def open_box(box: bytes, key: bytes) -> Body:
    """Return the content of the box.

    Raises:
        ValueError: it was not made under this key, or was changed.
    """
    try:
        clear = ChaCha20Poly1305(key).decrypt(ZERO_NONCE, box, None)
    except InvalidTag as error:
        raise ValueError("the box was changed, or is of another key") from error
    if not clear.startswith(COMMITMENT):
        raise ValueError("the box is not bound to its key")
    content = json.loads(clear[len(COMMITMENT) :])
    if not isinstance(content, dict):
        raise ValueError("the box holds no object")
    return content


def merged(body: Body, over: Mapping[str, Any]) -> Body:
    """`body` with what a box holds put into its blanks, object by object.

    Raises:
        ValueError: the box says something else than what was sealed in clear, so that the event
            would read differently to who opens it and after an erasure.
    """
    result = dict(body)
    for name, value in over.items():
        below = result.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            result[name] = merged(below, value)
        elif below in (None, "", value):
            result[name] = value
        else:
            raise ValueError(f"the box says another {name} than the event that it is in")
    return result
