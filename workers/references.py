"""Find and replace references to media inside messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_KEYS = {"media", "sha256", "content_type", "size"}


def is_reference(value: Any) -> bool:
    """Return whether a value has the shape of a reference to a media file."""
    return isinstance(value, dict) and _KEYS <= value.keys() <= _KEYS | {"details"}


def contains(value: Any, wanted: Callable[[Any], bool]) -> bool:
    """Return whether `wanted` is true of any part of `value`. Lists of numbers are skipped."""
    if wanted(value):
        return True
    if isinstance(value, dict):
        return any(contains(part, wanted) for part in value.values())
    if isinstance(value, (list, tuple)) and value and not isinstance(value[0], (int, float)):
        return any(contains(part, wanted) for part in value)
    return False


def swapped(value: Any, wanted: Callable[[Any], bool], swap: Callable[[Any], Any]) -> Any:
    """Return `value` with `swap` applied to `wanted` parts in dicts, lists and tuples."""
    if wanted(value):
        return swap(value)
    if isinstance(value, dict):
        return {name: swapped(part, wanted, swap) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [swapped(part, wanted, swap) for part in value]
    return value
