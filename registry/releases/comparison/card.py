"""Comparison of two model cards, by section."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

SECTIONS_SHOWN = 40
LINES_SHOWN = 120
# More lines than this are not compared one by one.
LINES_COMPARED = 2_000
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]++(.*)")
_FENCE = re.compile(r" {0,3}(```|~~~)")


@dataclass(frozen=True, slots=True)
class SectionChange:
    """One section by its heading; `lines` are ("add" | "del" | "", text), with one line around what
    changed; `left_out` more did not fit."""

    title: str
    slug: str
    change: str
    lines: list[tuple[str, str]]
    left_out: int


@dataclass(frozen=True, slots=True)
class CardChange:
    """Changed sections of a card, in the new card's order; `same` counts the others."""

    sections: list[SectionChange]
    same: int
    left_out: int


def card_changes(new: str, old: str) -> CardChange:
    """Compare two cards by section. A section ends where the next heading begins."""
    return section_changes(sections(new), sections(old))


def section_changes(
    after: Mapping[str, tuple[str, str]], before: Mapping[str, tuple[str, str]]
) -> CardChange:
    """Compare sections, {slug: (title, text)}, line by line."""
    changed: list[SectionChange] = []
    same = 0
    for slug in (*after, *(each for each in before if each not in after)):
        title, text = after.get(slug) or before[slug]
        was = before[slug][1] if slug in before else ""
        now = text if slug in after else ""
        if slug in before and slug in after and was.split() == now.split():
            same += 1
            continue
        kind = "changed"
        if slug not in before or slug not in after:
            kind = "removed" if slug not in after else "added"
        lines = _lines(was, now)
        changed.append(
            SectionChange(title, slug, kind, lines[:LINES_SHOWN], max(0, len(lines) - LINES_SHOWN))
        )
    left_out = max(0, len(changed) - SECTIONS_SHOWN)
    return CardChange(changed[:SECTIONS_SHOWN], same, left_out)


def sections(card: str) -> dict[str, tuple[str, str]]:
    """Return {slug: (title, text)} of a Markdown card; text before the first heading is
    `introduction`. Headings within code do not count; slugs of repeated headings get a number."""
    parts: dict[str, tuple[str, list[str]]] = {"introduction": ("Introduction", [])}
    current, fence = "introduction", ""
    numbers: Counter[str] = Counter()
    for line in card.splitlines():
        if (mark := _FENCE.match(line)) and fence in {"", mark.group(1)}:
            fence = "" if fence else mark.group(1)
        heading = _HEADING.fullmatch(line) if not fence else None
        if heading is None:
            parts[current][1].append(line)
            continue
        # A heading may end with closing # marks.
        title = heading[1].rstrip(" \t").rstrip("#").rstrip(" \t")[:200] or "Untitled"
        current = slug = slug_of(title)
        while current in parts:
            numbers[slug] += 1
            current = f"{slug}-{numbers[slug] + 1}"
        parts[current] = (title, [])
    texts = {slug: (title, "\n".join(lines).strip("\n")) for slug, (title, lines) in parts.items()}
    if not texts["introduction"][1].strip():
        del texts["introduction"]
    return texts


def slug_of(title: str) -> str:
    """Return a heading as a slug: lowercase letters, digits and hyphens, at most 80 characters."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80] or "section"


def _lines(old: str, new: str) -> list[tuple[str, str]]:
    before, after = old.splitlines(), new.splitlines()
    if len(before) + len(after) > LINES_COMPARED:
        return [("", f"{len(before)} lines before, {len(after)} now: too many to compare here.")]
    kinds = {"+": "add", "-": "del"}
    diff = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
    return [(kinds.get(line[:1], ""), line) for line in diff if not line.startswith("@@")]
