"""Translation: a small Marian learns to write Serbian, given in Cyrillic, in Latin letters."""

from __future__ import annotations

import json
from pathlib import Path

from assay_demo.clients import hugging_face_client
from assay_demo.data.serbian import Pair, serbian_pairs, untrained_writer
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

LICENSE = "BSD-3-Clause and MIT"


def _base(stage: Stage) -> Path:
    folder = stage.folder / "bases" / "small-marian"
    folder.mkdir(parents=True, exist_ok=True)
    return untrained_writer(folder)


def _lines(rows: list[Pair]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _call(stage: Stage, model: str) -> str:
    rows = (each for each in serbian_pairs()[1] if each["source"].replace(" ", "").isalpha())
    row = next(each for each in rows if each["source"].count(" ") == 2)
    client = hugging_face_client(stage, "translation", model)
    written = client.translation(row["source"]).translation_text
    latin = bool(written) and all(letter < "Ѐ" for letter in written if letter.isalpha())
    stage.expect(latin, f"{model} writes Latin letters")
    return f"{model} writes “{row['source']}” as “{written}”; people wrote “{row['target']}”."


SHOWCASE = Showcase(
    task="translation",
    model="serbian-letters",
    description="Writes Serbian, given in Cyrillic, in Latin letters.",
    base=Base(
        "small-marian",
        "translation",
        "A small Marian of characters with random weights, for a demonstration.",
        "Made by Assay (examples/demo/assay_demo/data/serbian.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training(
        "full",
        {
            "epochs": 45, "learning_rate": 0.002, "batch_size": 16, "max_length": 48,
            "label_smoothing": 0.0,
        },
        Data(
            "serbian-train",
            LICENSE,
            lambda stage: _lines(serbian_pairs()[0]),
            suffix=".jsonl",
        ),
    ),
    test=Data(
        "serbian-test", LICENSE, lambda stage: _lines(serbian_pairs()[1]), suffix=".jsonl"
    ),
    gate=Gate(
        "chrf", ">=", 65, "A copy reaches 13, the target of the most similar training text 52."
    ),
    call=_call,
    demonstration=True,
)  # fmt: skip
