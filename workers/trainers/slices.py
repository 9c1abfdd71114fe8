"""Parts of a dataset that are measured by themselves: few, and the same for every version."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

MAX_LABELS = 12


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows by their numbers; `by` is what they are parted by."""

    by: str
    name: str
    rows: list[int]


def by_label(labels: list[str]) -> list[Part]:
    """A part for each label, for the twelve most frequent; the others are one part together."""
    ranked = [label for label, _ in Counter(labels).most_common()]
    shown = ranked[: MAX_LABELS if len(ranked) <= MAX_LABELS else MAX_LABELS - 1]
    parts = [
        Part("label", label, [n for n, each in enumerate(labels) if each == label])
        for label in sorted(shown)
    ]
    others = [n for n, each in enumerate(labels) if each not in set(shown)]
    return [*parts, Part("label", "all other labels", others)] if others else parts


def by_length(texts: list[str]) -> list[Part]:
    """Short, middling and long inputs: thirds of the rows by characters.

    Inputs of one length stay together, so that thirds are uneven, or fewer, where many are alike;
    none at all where all are.
    """
    lengths = [len(text) for text in texts]
    ranked = sorted(lengths)
    first, second = ranked[(len(ranked) - 1) // 3], ranked[2 * (len(ranked) - 1) // 3]
    names = (
        f"short, up to {first} characters",
        f"middling, {first + 1} to {second} characters",
        f"long, over {second} characters",
    )
    rows: tuple[list[int], ...] = ([], [], [])
    for number, length in enumerate(lengths):
        rows[(length > first) + (length > second)].append(number)
    parts = [
        Part("input length", name, found) for name, found in zip(names, rows, strict=True) if found
    ]
    return parts if len(parts) > 1 else []


def by_turns(turns: list[int]) -> list[Part]:
    """Conversations of one question, and longer ones; none where all are alike."""
    single = [n for n, count in enumerate(turns) if count <= 1]
    several = [n for n, count in enumerate(turns) if count > 1]
    if not single or not several:
        return []
    return [Part("turns", "one question", single), Part("turns", "several questions", several)]
