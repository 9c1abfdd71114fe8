"""Details of an audit event as labels and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

FACTS_MAX = 40
LISTED_MAX = 20
TEXT_MAX = 300
# Shown elsewhere on the page.
_ELSEWHERE = frozenset({"decision", "before", "after", "code", "status"})
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the recorded details as (label, value): changes first, then the rest by name."""
    rows = [*_changes(data), *_rest(data)]
    return rows[:FACTS_MAX]


def _changes(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not {"before", "after"} & data.keys():
        return
    before, after = data.get("before"), data.get("after")
    if isinstance(before, Mapping) or isinstance(after, Mapping):
        old = before if isinstance(before, Mapping) else {}
        new = after if isinstance(after, Mapping) else {}
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                yield _label(name), f"{_value(old.get(name))} → {_value(new.get(name))}"
    elif before != after:
        yield "Changed", f"{_value(before)} → {_value(after)}"


def _rest(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in sorted(set(data) - _ELSEWHERE):
        if data[name] not in _EMPTY:
            yield _label(name), _value(data[name])
    if "status" in data:
        code = str(data.get("code", "")).replace("_", " ")
        yield "Response", f"{data['status']} {code}".strip()


def _label(name: str) -> str:
    words = str(name).replace("_", " ").strip()
    return words[:1].upper() + words[1:60]


def _value(value: Any) -> str:
    if value in _EMPTY:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        parts = [f"{_label(name).lower()}: {_value(inner)}" for name, inner in value.items()]
        return _joined(parts)
    if isinstance(value, list):
        return _joined([_value(item) for item in value])
    text = str(value)
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…"


def _joined(parts: list[str]) -> str:
    more = len(parts) - LISTED_MAX
    text = ", ".join(parts[:LISTED_MAX])
    return text if more <= 0 else f"{text} and {more} more"
