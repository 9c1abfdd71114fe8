"""Comparison of two sets of named values, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

FIELDS_SHOWN = 100
_DEPTH = 6


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field; `change` is same, changed, added or removed, or new if there is no other."""

    name: str
    old: Any
    new: Any
    change: str


@dataclass(frozen=True, slots=True)
class Fields:
    """Changed fields first, then the others; `left_out` did not fit."""

    rows: list[FieldChange]
    left_out: int

    @property
    def changed(self) -> list[FieldChange]:
        return [row for row in self.rows if row.change not in {"same", "new"}]

    @property
    def same(self) -> list[FieldChange]:
        return [row for row in self.rows if row.change in {"same", "new"}]


def field_changes(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> Fields:
    """Compare `new` with `old` (None: nothing to compare with), in the order of `new`."""
    before = old or {}
    rows = []
    for name in (*new, *(each for each in before if each not in new)):
        if old is None:
            change = "new"
        elif name not in new:
            change = "removed"
        elif name not in before:
            change = "added"
        else:
            change = "same" if new[name] == before[name] else "changed"
        rows.append(FieldChange(name, before.get(name), new.get(name), change))
    rows.sort(key=lambda row: row.change == "same")
    return Fields(rows[:FIELDS_SHOWN], max(0, len(rows) - FIELDS_SHOWN))


def flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested values: {"operation": {"contact": "x"}} becomes {"operation · contact": "x"}.

    Lists of plain values stay whole; empty values are left out.
    """
    return dict(_flat("", value, 0))


def _flat(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    inner: Iterator[tuple[str, Any]] | None = None
    if isinstance(value, Mapping) and depth < _DEPTH:
        inner = ((str(name), each) for name, each in value.items())
    elif isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value):
        inner = ((str(number), each) for number, each in enumerate(value, start=1))
    if inner is None or depth >= _DEPTH:
        if value not in (None, "", [], {}):
            yield path, value
        return
    for name, each in inner:
        yield from _flat(f"{path} · {name}" if path else name, each, depth + 1)
