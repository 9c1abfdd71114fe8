"""Quality, time and memory of text to image, with a pipeline trained on garments.

First the base's image encoder is trained on Fashion-MNIST, then the recipe trains the denoiser.
Prompt match is measured for the untrained base too. `--quick` uses fewer steps and images.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from assay_demo.data.drawing import build_pipeline, caption
from assay_demo.data.garments import Garment, garments
from benchmarks.progress import Quiet
from benchmarks.table import Row, show
from registry.catalog import get_task
from workers.engines.names import load_name
from workers.trainers.evaluation import evaluate
from workers.trainers.protocol import (
    EvaluationPlan,
    EvaluationRequest,
    EvaluationResult,
    TrainingRequest,
)

SETTINGS = {"learning_rate": 2e-3, "batch_size": 32, "ema_decay": 0.98}


def main() -> None:
    """Print prompt match of base and version, and the seconds of each stage."""
    task = get_task("text-to-image")
    quick = "--quick" in sys.argv
    train_photos, test_photos = garments(2_000, 50 if quick else 200)
    settings = {**SETTINGS, "steps": 100 if quick else 500}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        media = folder / "media"
        media.mkdir()
        train_file = _write(folder / "train.jsonl", train_photos, media)
        test_file = _write(folder / "test.jsonl", test_photos, media)
        base, encoder_s = _timed(lambda: build_pipeline(train_photos, folder / "base"))
        request = TrainingRequest(
            task=task.name,
            method="full",
            base=base,
            train_file=train_file,
            output=folder / "version",
            checkpoints=folder / "checkpoints",
            hyperparameters=settings,
            media=media,
        )
        train = load_name(task.recipe("full").train)
        _, train_s = _timed(lambda: train(request, Quiet()))
        untrained = _evaluated(base, test_file, train_file, media)
        evaluation, evaluation_s = _timed(
            lambda: _evaluated(folder / "version", test_file, train_file, media)
        )
    real = evaluation.details["baselines"][1]["metrics"]["prompt_match"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    match = [evaluation.metrics["prompt_match"]]
    show(
        f"Text to image, {evaluation.sample_size} prompts, {settings['steps']} steps of training, "
        f"{peak:.0f} MiB at most",
        "compared with",
        [
            Row.of(
                "prompt match, images of other prompts",
                "",
                match,
                [evaluation.baseline["prompt_match"]],
            ),
            Row.of(
                "prompt match, the untrained base", "", match, [untrained.metrics["prompt_match"]]
            ),
            Row.of("prompt match, the real images", "", match, [real]),
            Row.of("variety, the real images", "", [evaluation.metrics["variety"]], [1.0]),
            Row.of("training the image encoder", "s", [encoder_s]),
            Row.of("training the denoiser", "s", [train_s]),
            Row.of("an image, in batches", "s", [evaluation_s / evaluation.sample_size]),
        ],
    )


def _write(path: Path, photos: list[Garment], media: Path) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for photo in photos:
            digest = hashlib.sha256(photo.png).hexdigest()
            (media / digest).write_bytes(photo.png)
            file.write(json.dumps({"image": digest, "text": caption(photo.label)}) + "\n")
    return path


def _evaluated(version: Path, test_file: Path, train_file: Path, media: Path) -> EvaluationResult:
    task = get_task("text-to-image")
    if task.evaluation is None:
        raise RuntimeError(f"{task.title} is not evaluated.")
    plan = EvaluationPlan(
        engine=task.engine,
        runner=task.runner,
        architectures=task.architectures,
        request=task.evaluation.request,
        score=task.evaluation.score,
        media_columns=("image",),
    )
    return evaluate(EvaluationRequest(plan, version, None, test_file, train_file, media), Quiet())


def _timed(work: Any) -> tuple[Any, float]:
    started = time.monotonic()
    result = work()
    return result, time.monotonic() - started


if __name__ == "__main__":
    main()
