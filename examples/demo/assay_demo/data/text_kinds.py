"""Sentences of four kinds of texts; the kind is known from the source, not judged.

The data is from Hutto and Gilbert, "VADER", ICWSM 2014, in the package `vaderSentiment` (MIT).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

KINDS = {
    "amazonReviewSnippets.txt": "product review",
    "movieReviewSnippets.txt": "film review",
    "nytEditorialSnippets.txt": "newspaper editorial",
    "tweets.txt": "tweet",
}
MIN_WORDS = 8


def kinds_of_text(folder: Path, rows_each: int) -> list[dict[str, Any]]:
    """Return rows {"text", "candidate_labels", "label"} with `rows_each` sentences of each kind."""
    labels = sorted(KINDS.values())
    rows: list[dict[str, Any]] = []
    for name, label in KINDS.items():
        lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
        texts = {" ".join(line.split("\t", 2)[2].split()) for line in lines if "\t" in line}
        long = sorted((each for each in texts if len(each.split()) >= MIN_WORDS), key=_shuffled)
        rows += [
            {"text": text, "candidate_labels": labels, "label": label} for text in long[:rows_each]
        ]
    return sorted(rows, key=lambda row: _shuffled(row["text"]))


def _shuffled(text: str) -> bytes:
    """Return a key that sorts texts into a fixed pseudorandom order."""
    return hashlib.sha256(text.encode()).digest()
