"""Measurements of an evaluation, prepared for drawing: matrix, classes, samples, comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay.portal.intervals import (
    Baseline,
    Gate,
    Row,
    baseline_row,
    gate_words,
    metric_row,
    slice_row,
)
from registry.evaluations.drift import drift_in_words
from registry.evaluations.models import Evaluation
from registry.evaluations.recordings import SAMPLES_SHOWN
from registry.releases.comparison.build import Measured
from registry.releases.comparison.samples import sample_part
from registry.releases.exports.hosted import provider_in_words


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a confusion matrix; `heat` is the share of its row in tenths."""

    count: int
    share: float
    heat: int
    right: bool


def confusion(details: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return labels and rows of cells: true class down, predicted class across."""
    matrix = details.get("confusion_matrix")
    if not matrix:
        return None
    labels = matrix["labels"]
    rows = []
    for label, counts in zip(labels, matrix["matrix"], strict=True):
        total = sum(counts) or 1
        cells = [
            Cell(
                count,
                count / total * 100,
                min(10, int(count / total * 10 + 0.5)),
                label == predicted,
            )
            for predicted, count in zip(labels, counts, strict=True)
        ]
        rows.append({"label": label, "cells": cells, "total": sum(counts)})
    return {"labels": labels, "rows": rows}


def per_class(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return F1 (0 to 1) and support of each class."""
    return [
        {"label": label, **entry, "width": round(entry["f1"] * 100, 1)}
        for label, entry in details.get("per_class", {}).items()
    ]


SAMPLE_PARTS = (("Expected", "expected"), ("Baseline", "baseline"), ("This version", "output"))


def samples(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return sample inputs with the expected output, the baseline's, and this version's."""
    return [
        {
            "prompt": sample_part(entry, "input", evaluation.pk),
            "answers": [
                (title, part)
                for title, name in SAMPLE_PARTS
                if (part := sample_part(entry, name, evaluation.pk)) is not None
            ],
        }
        for entry in evaluation.details.get("samples", [])[:SAMPLES_SHOWN]
    ]


@dataclass(frozen=True, slots=True)
class EvaluationCharts:
    """An evaluation with everything that a page draws of it."""

    measured: Measured
    rows: list[Row]
    slices: list[Row]
    slices_by: list[str]
    baselines: list[Baseline]
    gates_not_measured: list[Gate]
    confusion: dict[str, Any] | None
    per_class: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    provider: str = ""
    drift: str = ""

    @property
    def evaluation(self) -> Evaluation:
        return self.measured.evaluation

    @property
    def old_name(self) -> str:
        return self.measured.against_name

    @property
    def all_passed(self) -> bool | None:
        """True when every gate passed; None without gates."""
        return self.measured.all_passed


def drawn(measured: Measured) -> EvaluationCharts:
    """Return the measurements together with those that they are compared with."""
    details = measured.evaluation.details
    return EvaluationCharts(
        measured=measured,
        rows=[metric_row(row, measured.evaluation.pk) for row in measured.metrics],
        slices=[slice_row(row) for row in measured.slices],
        slices_by=list(dict.fromkeys(row.by for row in measured.slices)),
        baselines=[baseline_row(row) for row in measured.baselines],
        gates_not_measured=[
            Gate(check, gate_words(check)) for check in measured.gates_not_measured
        ],
        confusion=confusion(details),
        per_class=per_class(details),
        samples=samples(measured.evaluation),
        drift=drift_in_words(details.get("drift", {})),
        provider=provider_in_words(details["provider"]) if details.get("provider") else "",
    )
