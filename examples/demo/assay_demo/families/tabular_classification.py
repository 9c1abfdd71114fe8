"""Tabular classification: a logistic regression tells benign from malignant biopsies."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from assay_demo.clients import hugging_face_client
from assay_demo.data import records
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage


def _base(stage: Stage) -> Path:
    return records.empty_classifier(stage.folder / "bases" / "empty-classifier")


def _train(stage: Stage) -> bytes:
    return records.biopsies()[0]


def _test(stage: Stage) -> bytes:
    return records.biopsies()[1]


def _call(stage: Stage, model: str) -> str:
    """Classify the first test records with Hugging Face's own client."""
    rows = list(csv.DictReader(io.StringIO(records.biopsies()[1].decode())))[:5]
    truth = [row.pop(records.LABEL) for row in rows]
    table = {name: [row[name] for row in rows] for name in rows[0]}
    client = hugging_face_client(stage, "tabular-classification", model)
    found = client.tabular_classification(table)
    right = sum(label == expected for label, expected in zip(found, truth, strict=True))
    stage.expect(right >= 4, f"{model} is right about {right} of 5 biopsies")
    return f"{model} calls five biopsies {', '.join(found)}; {right} of 5 are right."


SHOWCASE = Showcase(
    task="tabular-classification",
    model="biopsy-classifier",
    description="Tells benign from malignant biopsies by 30 measures of cell nuclei.",
    base=Base(
        "empty-classifier",
        "tabular-classification",
        "A classifier of records that knows no feature yet, to train from.",
        "Made by Assay (examples/demo/assay_demo/data/records.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training("linear", {}, Data("biopsies-train", "BSD-3-Clause", _train, suffix=".csv")),
    test=Data("biopsies-test", "BSD-3-Clause", _test, suffix=".csv"),
    gate=Gate("macro_f1", ">=", 0.92, "A cut at the best single measure already reaches 0.893."),
    call=_call,
    demonstration=True,
)
