"""Score vectors of images: the nearest images should have the same label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torchmetrics.functional.retrieval import retrieval_average_precision

from assay.plugins import run

TOP = 10
SIDE = 32  # width and height of the baselines' images, in pixels
PIXELS, GRAY = "Pixels", "Gray pixels"
MAX_ROWS = 5_000
SAMPLES = 8


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return the share of images whose nearest other image has the same label, and the mean average
    precision of the ten nearest.

    The first baseline compares pixels, the second one gray pixels, because color may mislead.

    Raises:
        BadMaterial: there are too many rows, or no label has two images.
        Canceled: `request.progress` requests a stop.
    """
    labels = np.array([row["label"] for row in request.rows])
    if len(labels) > MAX_ROWS:
        raise run.BadMaterial(f"Each image is compared with all others; at most {MAX_ROWS:,} fit.")
    if len(set(labels)) == len(labels):
        raise run.BadMaterial(
            "Each label has only one image; the score needs two images of a label."
        )
    vectors = np.array([outcome.results[0] for outcome in request.outcomes], dtype=np.float32)
    similarities = {
        "": _fits(vectors),
        PIXELS: _fits(_pixels(request, "RGB")),
        GRAY: _fits(_pixels(request, "L")),
    }
    measured = {name: _measured(fits, labels, request) for name, fits in similarities.items()}
    nearest = similarities[""].argmax(axis=1)
    return run.EvaluationResult(
        metrics=_means(measured[""]),
        baseline=_means(measured[PIXELS]),
        baseline_name=PIXELS,
        sample_size=len(labels),
        details={
            "samples": [
                {
                    "input_image": run.thumbnail(row["image"]),
                    "expected": row["label"],
                    "output": str(labels[best]),
                    "output_image": run.thumbnail(request.rows[best]["image"]),
                }
                for row, best in list(zip(request.rows, nearest, strict=True))[:SAMPLES]
            ],
            "baselines": [
                {"name": name, "metrics": _means(measured[name]), "trained_on": 0}
                for name in (PIXELS, GRAY)
            ],
            "right": {
                "n": len(labels),
                "bits": np.packbits(measured[""]["nearest"] > 0).tobytes().hex(),
            },
        },
        intervals={
            "metrics": {"map_10": _interval(measured[""]["map_10"])},
            "baseline": {"map_10": _interval(measured[PIXELS]["map_10"])},
        },
        slices=[
            {
                "by": part.by,
                "name": part.name[:100],
                "n": len(part.rows),
                "metric": "nearest",
                "value": float(measured[""]["nearest"][part.rows].mean()),
                "baseline": float(measured[PIXELS]["nearest"][part.rows].mean()),
            }
            for part in run.slices_by_label(list(labels))
        ],
    )


def _fits(vectors: np.ndarray) -> np.ndarray:
    """Return the negative squared distances of all pairs; -inf between an image and itself."""
    squares = (vectors**2).sum(axis=1)
    fits: np.ndarray = 2 * vectors @ vectors.T - squares[None] - squares[:, None]
    np.fill_diagonal(fits, -np.inf)
    return fits


def _measured(
    fits: np.ndarray, labels: np.ndarray, request: run.ScoreRequest
) -> dict[str, np.ndarray]:
    order = np.argsort(-fits, axis=1, kind="stable")[:, :TOP]
    same = labels[order] == labels[:, None]
    ranks = torch.arange(same.shape[1], 0, -1, dtype=torch.float32)
    precisions = []
    for number, row in enumerate(same):
        if number % 256 == 0 and request.progress.should_stop():
            raise run.Canceled
        precisions.append(float(retrieval_average_precision(ranks, torch.from_numpy(row))))
    return {"nearest": same[:, 0].astype(float), "map_10": np.array(precisions)}


def _means(measured: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in measured.items()}


def _interval(values: np.ndarray) -> dict[str, Any]:
    return run.bootstrap(float(values.mean()), lambda rows: float(values[rows].mean()), len(values))


def _pixels(request: run.ScoreRequest, mode: str) -> np.ndarray:
    paths: Sequence[Path] = [row["image"] for row in request.rows]
    vectors = []
    for number, path in enumerate(paths):
        if number % 256 == 0 and request.progress.should_stop():
            raise run.Canceled
        try:
            image = run.read_image(path).convert(mode)
        except run.UnreadableImage as error:
            raise run.BadMaterial(f"The image {path.name[:12]}…: {error}") from error
        small = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BOX)
        vectors.append(np.asarray(small, dtype=np.float32).reshape(-1) / 255)
    return np.stack(vectors)
