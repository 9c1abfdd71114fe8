"""What an evaluation measured, prepared for drawing: matrix, classes, samples, comparisons."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.catalogue import TASKS
from registry.evaluations.models import Evaluation, GateResult
from registry.versions.models import ModelVersion

SAMPLES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric of one version beside what it is compared with.

    `better` is True, False, or None when equal or not comparable. `change` is new minus old.
    """

    title: str
    dataset: str
    rows: int
    new: float
    old: float | None
    change: float | None
    better: bool | None
    gates: list[GateResult] = field(default_factory=list)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are numbers (and not truth values)."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _direction(task: str, metric: str) -> tuple[str, bool | None]:
    entry = TASKS.get(task)
    for known in entry.metrics if entry else ():
        if known.name == metric:
            return known.title, known.higher_is_better
    return metric.replace("_", " ").capitalize(), None


def compare(evaluation: Evaluation, old: Mapping[str, Any], task: str) -> list[MetricRow]:
    """The evaluation's metrics beside `old`, the metrics of a live version or a baseline."""
    before = numbers(old)
    gates: dict[str, list[GateResult]] = {}
    for result in evaluation.gate_results.all():
        gates.setdefault(result.gate.metric, []).append(result)
    found = []
    for name, value in numbers(evaluation.metrics).items():
        title, higher = _direction(task, name)
        previous = before.get(name)
        change = None if previous is None else value - previous
        better = (change > 0) == higher if change and higher is not None else None
        found.append(
            MetricRow(
                title=title,
                dataset=str(evaluation.dataset_version),
                rows=evaluation.sample_size,
                new=value,
                old=previous,
                change=change,
                better=better,
                gates=gates.get(name, []),
            )
        )
    return sorted(found, key=lambda row: not row.gates)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a confusion matrix; `heat` is the share of its row in tenths."""

    count: int
    share: float
    heat: int
    right: bool


def confusion(details: Mapping[str, Any]) -> dict[str, Any] | None:
    """Labels and rows of cells: true class down, predicted class across."""
    found = details.get("confusion_matrix")
    if not found:
        return None
    labels = found["labels"]
    rows = []
    for label, counts in zip(labels, found["matrix"], strict=True):
        total = sum(counts) or 1
        cells = [
            Cell(count, count / total * 100, min(10, int(count / total * 10 + 0.5)), label == said)
            for said, count in zip(labels, counts, strict=True)
        ]
        rows.append({"label": label, "cells": cells, "total": sum(counts)})
    return {"labels": labels, "rows": rows}


def per_class(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """F1 (0 to 1) and support of each class."""
    return [
        {"label": label, **entry, "width": round(entry["f1"] * 100, 1)}
        for label, entry in details.get("per_class", {}).items()
    ]


SAMPLE_PARTS = (("Expected", "expected"), ("Baseline", "baseline"), ("This version", "output"))


def samples(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sample outputs: what was asked, what was expected, what came before and comes now."""
    return [
        {
            "asked": entry["input"],
            "answers": [(title, entry[name]) for title, name in SAMPLE_PARTS if name in entry],
        }
        for entry in details.get("samples", [])[:SAMPLES_SHOWN]
    ]


@dataclass(frozen=True, slots=True)
class Drawn:
    """An evaluation with everything that a page draws of it."""

    evaluation: Evaluation
    rows: list[MetricRow]
    old_name: str
    confusion: dict[str, Any] | None
    per_class: list[dict[str, Any]]
    samples: list[dict[str, Any]]

    @property
    def all_passed(self) -> bool | None:
        """Whether every gate passed; None when there were none."""
        results = [gate.passed for row in self.rows for gate in row.gates]
        return all(results) if results else None


def drawn(
    evaluation: Evaluation, *, task: str, live: Evaluation | None = None, live_name: str = ""
) -> Drawn:
    """The evaluation beside the live version's on the same data, else beside its baseline."""
    old = live.metrics if live else evaluation.baseline
    name = live_name if live else evaluation.baseline_name.replace("_", " ")
    return Drawn(
        evaluation=evaluation,
        rows=compare(evaluation, old, task),
        old_name=name or "baseline",
        confusion=confusion(evaluation.details),
        per_class=per_class(evaluation.details),
        samples=samples(evaluation.details),
    )


def newest_per_dataset(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """The newest evaluation on each dataset version; `evaluations` come newest first."""
    found: dict[int, Evaluation] = {}
    for evaluation in evaluations:
        found.setdefault(evaluation.dataset_version_id, evaluation)
    return list(found.values())


def manifest_files(version: ModelVersion) -> list[dict[str, Any]]:
    """Path, size and sha256 of every file."""
    files = version.manifest.get("files", []) if isinstance(version.manifest, Mapping) else []
    return [dict(file) for file in files if isinstance(file, Mapping) and "path" in file]


def file_changes(new: ModelVersion, old: ModelVersion | None) -> list[dict[str, Any]]:
    """Each file with `change`: added, changed, same or removed, against `old`."""
    before = {file["path"]: file for file in manifest_files(old)} if old else {}
    rows = []
    for file in manifest_files(new):
        previous = before.pop(file["path"], None)
        if previous is None:
            change = "added" if old else "new"
        else:
            change = "same" if previous["sha256"] == file["sha256"] else "changed"
        rows.append({**file, "change": change, "before": previous["sha256"] if previous else ""})
    gone = [{**file, "change": "removed", "before": file["sha256"]} for file in before.values()]
    return rows + gone


def card_diff(new: str, old: str) -> list[tuple[str, str]]:
    """Changed lines of a card: ("add" | "del" | "", text)."""
    kinds = {"+": "add", "-": "del"}
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1))[2:]
    return [(kinds.get(line[:1], ""), line) for line in lines]
