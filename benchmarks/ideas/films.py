"""Rows of film reviews, and a classifier that Assay's recipe tunes on them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay_demo.data import film_reviews, materials
from benchmarks.progress import Quiet
from registry.catalog import get_task
from tasks.text_classification.fine_tune import train
from workers.trainers.evaluation import evaluate
from workers.trainers.protocol import EvaluationPlan, EvaluationRequest, TrainingRequest

TASK = "text-classification"
SETTINGS = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-4, "max_length": 64}

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned version: its folder, and the processor seconds of its training."""

    folder: Path
    seconds: float


def parts() -> film_reviews.Parts:
    """Return the rows, in parts that share no review."""
    return film_reviews.split(
        film_reviews.read_sentences(materials.fetch(names=["film_reviews"])["film_reviews"])
    )


def minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2."""
    return materials.fetch(names=["minilm"])["minilm"]


def tuned(base: Path, rows: Rows, scratch: Path, **changes: Any) -> Tuned:
    """Tune `base` on `rows` with the recipe that jobs run."""
    scratch.mkdir(parents=True)
    output = scratch / "version"
    output.mkdir()
    data = written(rows, scratch / "train.jsonl")
    settings = {**SETTINGS, **changes}
    request = TrainingRequest(TASK, "full", base, data, output, scratch / "checkpoints", settings)
    began = time.process_time()
    train(request, Quiet())
    return Tuned(output, time.process_time() - began)


def accuracy(version: Path, rows: Rows, scratch: Path) -> float:
    """Return the share of right labels, with the jobs' evaluation and the serving runner."""
    task = get_task(TASK)
    assert task.evaluation is not None  # noqa: S101 (declared so)
    plan = EvaluationPlan(
        engine=task.engine,
        runner=task.runner,
        architectures=task.architectures,
        request=task.evaluation.request,
        score=task.evaluation.score,
    )
    data = written(rows, scratch / f"test-{version.parent.name}.jsonl")
    result = evaluate(EvaluationRequest(plan, version, None, data), Quiet())
    return result.metrics["accuracy"]


def written(rows: Rows, file: Path) -> Path:
    """Write rows as JSON lines."""
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file
