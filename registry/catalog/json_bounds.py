"""Bounds on JSON from outside: schemas of tools and answers, and arguments of calls."""

from __future__ import annotations

import json
from typing import Any

MAX_BYTES = 64 * 1024
MAX_DEPTH = 24
MAX_VALUES = 4_096


def bounded_json(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` if it is small, shallow and plain JSON. Raises ValueError."""
    values, level = 0, [value]
    depth = 0
    while level:
        depth += 1
        values += len(level)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
        if values > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES:,} values")
        level = [inner for each in level for inner in _inside(each)]
    try:
        size = len(json.dumps(value, allow_nan=False).encode())
    except (TypeError, ValueError):
        raise ValueError("it is not plain JSON") from None
    if size > MAX_BYTES:
        raise ValueError(f"it has {size:,} bytes; at most {MAX_BYTES:,} are accepted")
    return value


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else []
