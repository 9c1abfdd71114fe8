"""Slices of a dataset that are measured separately: few, and the same for every version."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

MAX_LABELS = 12


@dataclass(frozen=True, slots=True)
class Part:
    """A slice: some rows by their numbers; `by` names the criterion."""

    by: str
    name: str
    rows: list[int]


def by_label(labels: list[str]) -> list[Part]:
    """Return one slice for each of the twelve most frequent labels; any others share the last."""
    ranked = [label for label, _ in Counter(labels).most_common()]
    separate = ranked[: MAX_LABELS if len(ranked) <= MAX_LABELS else MAX_LABELS - 1]
    parts = [
        Part("label", label, [n for n, each in enumerate(labels) if each == label])
        for label in sorted(separate)
    ]
    others = [n for n, each in enumerate(labels) if each not in set(separate)]
    return [*parts, Part("label", "all other labels", others)] if others else parts


def by_length(texts: list[str]) -> list[Part]:
    """Return slices of short, middling and long inputs: thirds of the rows by characters."""
    return thirds(
        [len(text) for text in texts],
        by="input length",
        names=("short", "middling", "long"),
        unit="characters",
    )


def thirds(sizes: list[int], *, by: str, names: tuple[str, str, str], unit: str) -> list[Part]:
    """Return three slices of the rows by size, the smallest first.

    Rows of equal size stay together, so the slices are uneven, or fewer, if many sizes are equal;
    there are none if all are equal.
    """
    ranked = sorted(sizes)
    first, second = ranked[(len(ranked) - 1) // 3], ranked[2 * (len(ranked) - 1) // 3]
    bounds = (
        f"up to {first:,} {unit}",
        f"{first + 1:,} to {second:,} {unit}",
        f"over {second:,} {unit}",
    )
    rows: tuple[list[int], ...] = ([], [], [])
    for number, size in enumerate(sizes):
        rows[(size > first) + (size > second)].append(number)
    parts = [
        Part(by, f"{name}, {bound}", numbers)
        for name, bound, numbers in zip(names, bounds, rows, strict=True)
        if numbers
    ]
    return parts if len(parts) > 1 else []


def by_turns(turns: list[int]) -> list[Part]:
    """Return slices of conversations with one question and with several; none if all are alike."""
    single = [n for n, count in enumerate(turns) if count <= 1]
    several = [n for n, count in enumerate(turns) if count > 1]
    if not single or not several:
        return []
    return [Part("turns", "one question", single), Part("turns", "several questions", several)]
