"""JSON that all readers understand alike.

If an object has a name twice, Python keeps the last value, PostgreSQL's `json` keeps both, and
other readers keep the first: they could read signed, hashed or checked JSON differently.
"""

from __future__ import annotations

import json
from typing import Any

DUPLICATE_MEMBER = "an object names the same member twice"


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members, for `object_pairs_hook`. Raise ValueError for a repeated name."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError(DUPLICATE_MEMBER)
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def loads(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError, RecursionError: it is not JSON, has NaN or an infinity, or repeats a name.
    """
    return json.loads(text, object_pairs_hook=unique_object, parse_constant=_no_constant)
