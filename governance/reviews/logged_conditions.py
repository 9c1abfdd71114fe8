"""Conditions on an approval, as the audit log keeps them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

# What people must keep is in people's own words, which the log holds no longer than they want.
FREE_TEXT = "obligations"


def conditions_logged(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions, with each free text replaced by its SHA-256."""
    logged = dict(conditions)
    if FREE_TEXT in logged:
        logged[FREE_TEXT] = [
            hashlib.sha256(str(text).encode()).hexdigest() for text in logged[FREE_TEXT]
        ]
    return logged
