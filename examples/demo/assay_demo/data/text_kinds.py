"""Sentences of four kinds of texts; the kind of each is known, not judged.

The data is that of Hutto and Gilbert, "VADER", ICWSM 2014, as `vaderSentiment` carries it (MIT).
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
        kept = sorted((each for each in texts if len(each.split()) >= MIN_WORDS), key=_shuffled)
        rows += [
            {"text": text, "candidate_labels": labels, "label": label} for text in kept[:rows_each]
        ]
    return sorted(rows, key=lambda row: _shuffled(row["text"]))


def _shuffled(text: str) -> bytes:
    """A key that sorts texts into an order that is fixed and follows no pattern."""
    return hashlib.sha256(text.encode()).digest()
