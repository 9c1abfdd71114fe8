"""Score a segmenter by intersection over union, against two simple baselines."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.plugins import run
from tasks.image_segmentation.baselines import CONSTANT, OTSU, frequent, otsu
from tasks.image_segmentation.masks import crowded, from_segments, read_mask
from tasks.image_segmentation.measures import pixel_counts, scores

SAMPLES = 8
# The baselines count labels in at most this many masks of training rows.
COUNTED_MASKS = 500
COMPARED = ("mean_iou", "pixel_accuracy")


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return mean IoU, pixel accuracy and the IoU of each label, with slices by foreground share.

    A label that the version does not know counts as missed on every image.

    Raises:
        BadMaterial: a mask cannot be read, or there are too many labels.
        Canceled: `request.progress` requests a stop.
    """
    rows = request.rows
    answers = [outcome.results[0] for outcome in request.outcomes]
    labels = list(dict.fromkeys(label for row in rows for label in row["categories"]))
    labels += sorted({each["label"] for predicted in answers for each in predicted} - set(labels))
    crowded(labels)
    labeled = (request.train_rows or rows)[:COUNTED_MASKS]
    usual = frequent(
        [read_mask(row["mask"], row["categories"], labels) for row in labeled], len(labels)
    )
    counts = np.zeros((3, len(rows), len(labels) + 1, len(labels) + 1), dtype=np.int64)
    samples, shares = [], []
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        if number % 16 == 0 and request.progress.should_stop():
            raise run.Canceled
        truth = read_mask(row["mask"], row["categories"], labels)
        predicted = from_segments(answer, labels, truth.shape)
        for place, mask in enumerate(
            (predicted, otsu(row["image"], truth.shape, usual), np.full_like(truth, usual[0]))
        ):
            counts[place, number] = pixel_counts(truth, mask, len(labels))
        shares.append(round(100 * float((truth != usual[0]).mean())))
        if number < SAMPLES:
            samples.append(_sample(row, labels, truth, predicted, usual[0]))
    metrics, *others = (scores(each.sum(0), labels) for each in counts)
    baselines = dict(zip((OTSU, CONSTANT), others, strict=True))
    first = max(baselines, key=lambda name: baselines[name]["mean_iou"])
    theirs = counts[1 + list(baselines).index(first)]
    return run.EvaluationResult(
        metrics=metrics,
        baseline=baselines[first],
        baseline_name=first,
        sample_size=len(rows),
        details={
            "confusion_matrix": {
                "labels": labels,
                "matrix": counts[0].sum(0)[: len(labels), : len(labels)].tolist(),
            },
            "samples": samples,
            "baselines": [
                {
                    "name": name,
                    "metrics": {each: baselines[name][each] for each in COMPARED},
                    "trained_on": len(request.train_rows or ()),
                }
                for name in sorted(baselines, key=lambda each: each != first)
            ],
        },
        intervals={
            "metrics": _intervals(counts[0], metrics, labels),
            "baseline": _intervals(theirs, baselines[first], labels),
        },
        slices=[
            {
                "by": part.by,
                "name": part.name,
                "n": len(part.rows),
                "metric": "mean_iou",
                "value": scores(counts[0][part.rows].sum(0), labels)["mean_iou"],
                "baseline": scores(theirs[part.rows].sum(0), labels)["mean_iou"],
            }
            for part in run.slices_by_size(
                shares,
                by=f"share of the image that is not {labels[usual[0]]}",
                names=("small", "medium", "large"),
                unit="percent",
            )
        ],
    )


def _intervals(
    counts: np.ndarray, metrics: dict[str, float], labels: list[str]
) -> dict[str, dict[str, Any]]:
    """Return the intervals of mean IoU and accuracy. Images are resampled, not pixels, because
    pixels of one image depend on each other."""

    def of(name: str) -> dict[str, Any]:
        return run.bootstrap(
            metrics[name],
            lambda rows: scores(counts[rows].sum(0), labels)[name],
            len(counts),
        )

    return {name: of(name) for name in COMPARED}


def _sample(
    row: dict[str, Any],
    labels: list[str],
    truth: np.ndarray,
    answer: np.ndarray,
    background: int,
) -> dict[str, Any]:
    def drawn(mask: np.ndarray) -> str:
        return run.draw_mask(
            row["image"], np.where(mask == background, 0, _shifted(mask, background))
        )

    def named(mask: np.ndarray) -> str:
        return ", ".join(
            labels[each] for each in np.unique(mask) if each < len(labels) and each != background
        )

    return {
        "input_image": run.draw_mask(row["image"], np.zeros_like(truth)),
        "expected_image": drawn(truth),
        "expected": named(truth),
        "output_image": drawn(answer),
        "output": named(answer),
    }


def _shifted(mask: np.ndarray, background: int) -> np.ndarray:
    """Number labels from 1, so that only the background stays transparent."""
    if background == 0:
        return mask
    return np.where(mask == 255, 255, np.minimum(mask.astype(np.int64) + 1, 254)).astype(np.uint8)
