"""Content of a logged request: a prompt and an answer as JSON, within `CONTENT_MAX` bytes."""

from __future__ import annotations

import json
import zlib
from typing import Any

import orjson

CONTENT_MAX = 256 * 1024
# Characters and members that shortening leaves at least; of a list of numbers, it leaves no more.
_LEAST = 32
_CUT_TEXT = "… [cut]"


def packed(content: dict[str, Any]) -> tuple[bytes, int, bool]:
    """Return content for encryption, its length in bytes of JSON, and true if it was cut.

    Content over `CONTENT_MAX` has its texts and lists shortened until it fits.
    """
    data, cut, longest = _dumped(content), False, CONTENT_MAX // 2
    while len(data) > CONTENT_MAX:
        cut = True
        if longest < _LEAST:
            # Objects have too many members. The top-level names stay, because readers use them.
            data = _dumped({name: {"cut": _CUT_TEXT} for name in content})
            break
        content = _shortened(content, longest)
        data, longest = _dumped(content), longest // 2
    return zlib.compress(data, 1), len(data), cut


def unpacked(data: bytes) -> dict[str, Any]:
    """Return the content from the bytes of `packed`."""
    content: dict[str, Any] = orjson.loads(zlib.decompress(data))
    return content


def _dumped(content: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(content)
    except TypeError:
        # Lone surrogates, or numbers over 64 bits.
        text = json.dumps(content, default=str, ensure_ascii=False)
        return text.encode("utf-8", "replace")


def _shortened(value: Any, longest: int) -> Any:
    """Return a copy in which texts and lists have at most `longest` characters or members."""
    if isinstance(value, str):
        return value if len(value) <= longest else value[:longest] + _CUT_TEXT
    if isinstance(value, dict):
        return {key: _shortened(each, longest) for key, each in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], (int, float)):
        # An embedding: copying each number again and again would take seconds.
        return value[:_LEAST]
    if isinstance(value, list):
        return [_shortened(each, longest) for each in value[:longest]]
    return value
