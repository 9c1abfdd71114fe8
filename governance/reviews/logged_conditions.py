"""Conditions on an approval, in the form that the audit log stores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

# Obligations are free text by people, who must be able to delete it; the log stores only hashes.
FREE_TEXT = "obligations"


def conditions_logged(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions with each free text replaced by its SHA-256."""
    logged = dict(conditions)
    if FREE_TEXT in logged:
        logged[FREE_TEXT] = [
            hashlib.sha256(str(text).encode()).hexdigest() for text in logged[FREE_TEXT]
        ]
    return logged
