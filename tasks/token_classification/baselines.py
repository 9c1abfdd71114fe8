"""Simple baselines that find passages: regular expressions, and phrases of the training data."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

Found = list[tuple[int, int, str]]
Finder = Callable[[str], Found]

_LONGEST_PHRASE = 6
_WORD = re.compile(r"\w+")

# Regular expressions of labels, the most specific first.
_EXPRESSIONS = {
    "EMAIL": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "URL": r"(?:https?://|www\.)[^\s,;)]+",
    "IP_ADDRESS": r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
    "TAX_ID": r"\b\d{3}-\d{2}-\d{4}\b",
    "GOVERNMENT_ID": r"\b\d{3}-\d{2}-\d{4}\b",
    "CREDIT_CARD": r"\b(?:\d[ -]?){13,16}\b",
    "BANK_ACCOUNT": r"\b[A-Z]{2}\d{2}[A-Z0-9]{10,30}\b",
    "DATE": r"\b\d{1,4}[-/.]\d{1,2}[-/.]\d{2,4}\b",
    "PHONE": r"\+?\(?\d[\d\s().x/-]{6,}\d",
    "ZIP_CODE": r"\b\d{5}(?:-\d{4})?\b",
    "BUILDING_NUMBER": r"\b\d{1,5}(?=\s[A-Z])",
    "GIVEN_NAME": r"\b[A-Z][a-z]+(?=\s[A-Z][a-z]+\b)",
    "SURNAME": r"(?<=[a-z]\s)[A-Z][a-z]+\b",
}


def expressions(labels: Collection[str]) -> Finder | None:
    """Return a finder of the `labels` that have a regular expression; None if no label has one."""
    regexes = [
        (label, re.compile(_EXPRESSIONS[label])) for label in _EXPRESSIONS if label in labels
    ]
    if not regexes:
        return None

    def find(text: str) -> Found:
        return _without_overlaps(
            (match.start(), match.end(), label)
            for label, expression in regexes
            for match in expression.finditer(text)
        )

    return find


def phrases(rows: Sequence[dict[str, Any]]) -> Finder:
    """Return a finder of the passages that `rows` mark, each with its most frequent label."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for span in row["spans"]:
            counts[row["text"][span["start"] : span["end"]]][span["label"]] += 1
    labels = {phrase: label_counts.most_common(1)[0][0] for phrase, label_counts in counts.items()}

    def find(text: str) -> Found:
        return _without_overlaps(
            (start, end, labels[text[start:end]])
            for start, end in _word_runs(text)
            if text[start:end] in labels
        )

    return find


def _word_runs(text: str) -> Iterator[tuple[int, int]]:
    """Yield runs of one to six words, the longest first."""
    words = [match.span() for match in _WORD.finditer(text)]
    for size in range(_LONGEST_PHRASE, 0, -1):
        for at in range(len(words) - size + 1):
            yield words[at][0], words[at + size - 1][1]


def _without_overlaps(passages: Iterable[tuple[int, int, str]]) -> Found:
    """Return the passages in the order of the text, without those that overlap an earlier one."""
    covered: set[int] = set()
    result: Found = []
    for start, end, label in passages:
        places = range(start, end)
        if covered.isdisjoint(places):
            covered.update(places)
            result.append((start, end, label))
    return sorted(result)
