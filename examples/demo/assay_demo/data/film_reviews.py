"""Sentences of film reviews, each rated for sentiment by about 20 people.

The data is from Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis
of Social Media Text", ICWSM 2014, in the source distribution of `vaderSentiment` (MIT).
A rating is the mean of the raters, from -4 (extremely negative) to 4 (extremely positive).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Sentences with a rating closer to 0 have no clear sentiment, and are left out.
NEUTRAL_WITHIN = 0.5
# The source names neither film nor review, but sentences of one review are next to each other.
NEIGHBORS = 20
# Sentences that share this many consecutive words quote the same text.
SHARED_WORDS = 8
TEST_ROWS = 1_500
VALIDATION_ROWS = 1_000
SEED = "assay-film-reviews-1"

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Rated:
    """One sentence. `number` is its position in the source, `rating` the mean of its ratings."""

    number: int
    rating: float
    text: str

    @property
    def row(self) -> Row:
        return {"text": self.text, "label": "positive" if self.rating > 0 else "negative"}


@dataclass(frozen=True, slots=True)
class Parts:
    """Rows {"text", "label"} for training, for choosing settings and gates, and for testing."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]


def read_sentences(path: Path) -> list[Rated]:
    """Read a ground-truth file of the source: number, rating and text, separated by tabs."""
    sentences = []
    for line in path.read_text(encoding="utf-8").splitlines():
        number, rating, text = line.split("\t", 2)
        sentences.append(Rated(int(number), float(rating), " ".join(text.split())))
    return sentences


def split(sentences: Iterable[Rated], train_rows: int | None = None) -> Parts:
    """Divide the sentences into three parts that share no review and no quotation.

    Neighbors in the source, and sentences that share eight consecutive words, stay in one part. A
    hash determines the part, so the result is the same on every machine. Sentences with a rating
    close to neutral are left out, and each text occurs once.

    Args:
        sentences: All sentences of one source.
        train_rows: Maximum number of training rows.
    """
    rated = [each for each in sentences if abs(each.rating) > NEUTRAL_WITHIN]
    first: dict[tuple[str, ...], Rated] = {}
    for each in rated:
        first.setdefault(_words(each.text), each)
    groups: dict[int, list[Rated]] = {}
    for each, group in _grouped(list(first.values())):
        groups.setdefault(group, []).append(each)
    parts: dict[str, list[Rated]] = {"test": [], "validation": [], "train": []}
    for group in sorted(groups, key=_shuffled):
        if len(parts["test"]) < TEST_ROWS:
            part = "test"
        elif len(parts["validation"]) < VALIDATION_ROWS:
            part = "validation"
        else:
            part = "train"
        parts[part] += groups[group]
    rows = {
        part: [each.row for each in sorted(members, key=lambda each: _shuffled(each.number))]
        for part, members in parts.items()
    }
    return Parts(rows["train"][:train_rows], rows["validation"], rows["test"][:TEST_ROWS])


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def _grouped(sentences: list[Rated]) -> Iterator[tuple[Rated, int]]:
    """Yield each sentence with the number of its group, the smallest number in the group."""
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        parent.setdefault(number, number)
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    first_with: dict[tuple[str, ...], int] = {}
    blocks = [(each, each.number // NEIGHBORS) for each in sentences]
    for each, block in blocks:
        words = _words(each.text)
        for start in range(len(words) - SHARED_WORDS + 1):
            other = first_with.setdefault(words[start : start + SHARED_WORDS], block)
            low, high = sorted((root(block), root(other)))
            parent[high] = low
    for each, block in blocks:
        yield each, root(block)


def _shuffled(number: int) -> bytes:
    """Return a key that sorts numbers into a fixed pseudorandom order."""
    return hashlib.sha256(f"{SEED}:{number}".encode()).digest()
