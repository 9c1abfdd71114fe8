"""Opening what stands in an event's boxes. Knows no Django: runs anywhere, offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

ZERO_NONCE = bytes(12)

Body = dict[str, Any]


def open_box(box: bytes, key: bytes) -> Body:
    """What the box holds.

    Raises:
        ValueError: it was not made under this key, or was changed.
    """
    try:
        content = json.loads(ChaCha20Poly1305(key).decrypt(ZERO_NONCE, box, None))
    except InvalidTag as error:
        raise ValueError("the box was changed, or is of another key") from error
    if not isinstance(content, dict):
        raise ValueError("the box holds no object")
    return content


def merged(body: Body, over: Mapping[str, Any]) -> Body:
    """`body` with what a box holds put over it, object by object."""
    result = dict(body)
    for name, value in over.items():
        below = result.get(name)
        both = isinstance(value, dict) and isinstance(below, dict)
        result[name] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result
