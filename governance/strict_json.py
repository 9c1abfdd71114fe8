"""JSON that says one thing to every reader.

Of a name that stands twice in an object Python keeps the last value, PostgreSQL's `json` all, and
other readers the first: what was signed, hashed or checked could then be read as something else.
"""

from __future__ import annotations

import json
from typing import Any

TWICE = "an object names the same member twice"


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members, for `object_pairs_hook`. Raises ValueError: one stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(TWICE)
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def loads(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError, RecursionError: it is none, has NaN or an infinity, or names a member twice.
    """
    return json.loads(text, object_pairs_hook=unique_object, parse_constant=_no_constant)
