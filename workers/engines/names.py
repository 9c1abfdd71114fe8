"""Import of an object by its dotted name."""

from __future__ import annotations

import importlib
from typing import Any


def load_name(dotted: str) -> Any:
    """Return the object that `package.module:name` names."""
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)
