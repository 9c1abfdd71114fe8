"""Find and replace references to media inside messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_KEYS = {"media", "sha256", "content_type", "size"}


def is_reference(value: Any) -> bool:
    """Return whether a value has the shape of a reference to a media file."""
    return isinstance(value, dict) and _KEYS <= value.keys() <= _KEYS | {"details"}


def contains(value: Any, matches: Callable[[Any], bool]) -> bool:
    """Return whether `matches` is true of any part of `value`. Lists of numbers are skipped."""
    if matches(value):
        return True
    if isinstance(value, dict):
        return any(contains(part, matches) for part in value.values())
    if isinstance(value, (list, tuple)) and value and not isinstance(value[0], (int, float)):
        return any(contains(part, matches) for part in value)
    return False


def replace_parts(value: Any, matches: Callable[[Any], bool], swap: Callable[[Any], Any]) -> Any:
    """Return `value` with `swap` applied to matching parts in dicts, lists and tuples."""
    if matches(value):
        return swap(value)
    if isinstance(value, dict):
        return {name: replace_parts(part, matches, swap) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_parts(part, matches, swap) for part in value]
    return value
