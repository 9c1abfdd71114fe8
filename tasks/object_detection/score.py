"""Score an object detector by COCO's average precision, against two simple baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from assay.plugins import run
from tasks.object_detection.baselines import (
    COMPONENTS,
    CONSTANT,
    components,
    constant,
    majority_label,
)
from tasks.object_detection.measures import average_precision
from tasks.object_detection.schema import Detection

SAMPLES = 8
# Boxes with a lower score are not drawn in samples.
SHOWN_SCORE = 0.3
SIDES: tuple[Literal["xmin", "ymin", "xmax", "ymax"], ...] = ("xmin", "ymin", "xmax", "ymax")
COMPARED = ("map", "map_50", "map_75", "recall")


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return average precision over all labels and for each label, with slices by object count.

    A label that the version does not know counts as missed on every image. The most frequent label
    comes from the training rows if the version has any, else from the test rows, which flatters the
    baselines.

    Raises:
        Canceled: `request.progress` requests a stop.
    """
    rows, progress = request.rows, request.progress
    truth = [row["objects"] for row in rows]
    images = [row["image"] for row in rows]
    answers: list[list[Detection]] = [outcome.results[0] for outcome in request.outcomes]
    labeled = request.train_rows or rows
    label = majority_label(labeled)
    progress.log("Measuring two baselines.")
    guesses = {
        COMPONENTS: components(images, label, progress),
        CONSTANT: constant(labeled, images, label),
    }
    labels = sorted(
        {each for objects in truth for each in objects["categories"]}
        | {each["label"] for boxes in [*answers, *guesses[COMPONENTS]] for each in boxes}
    )
    metrics = average_precision(truth, answers, labels)
    baselines = {name: average_precision(truth, boxes, labels) for name, boxes in guesses.items()}
    first = max(baselines, key=lambda name: baselines[name]["map"])
    return run.EvaluationResult(
        metrics=metrics,
        baseline=baselines[first],
        baseline_name=first,
        sample_size=len(rows),
        details={
            "boxes": sum(len(objects["bbox"]) for objects in truth),
            "samples": [
                _sample(row, boxes)
                for row, boxes in zip(rows[:SAMPLES], answers[:SAMPLES], strict=True)
            ],
            "baselines": [
                {
                    "name": name,
                    "metrics": {each: baselines[name][each] for each in COMPARED},
                    "trained_on": len(request.train_rows or ()),
                }
                for name in sorted(baselines, key=lambda each: each != first)
            ],
        },
        slices=[
            {
                "by": part.by,
                "name": part.name,
                "n": len(part.rows),
                "metric": "map",
                "value": _part(truth, answers, labels, part),
                "baseline": _part(truth, guesses[first], labels, part),
            }
            for part in _by_count([len(objects["bbox"]) for objects in truth])
        ],
    )


def _part(
    truth: Sequence[dict[str, Any]],
    answers: Sequence[list[Detection]],
    labels: list[str],
    part: run.Slice,
) -> float:
    return average_precision(
        [truth[row] for row in part.rows], [answers[row] for row in part.rows], labels
    )["map"]


def _by_count(counts: list[int]) -> list[run.Slice]:
    """Return slices of images by object count; an image without objects has no precision."""
    groups = {
        "1 object": [row for row, count in enumerate(counts) if count == 1],
        "2 or 3 objects": [row for row, count in enumerate(counts) if count in (2, 3)],
        "4 or more objects": [row for row, count in enumerate(counts) if count > 3],
    }
    parts = [run.Slice("objects", name, rows) for name, rows in groups.items() if rows]
    return parts if len(parts) > 1 else []


def _sample(row: dict[str, Any], answer: list[Detection]) -> dict[str, Any]:
    objects = row["objects"]
    expected = [
        (label, (x, y, x + width, y + height))
        for label, (x, y, width, height) in zip(objects["categories"], objects["bbox"], strict=True)
    ]
    likely = [each for each in answer if each["score"] >= SHOWN_SCORE]
    drawn = [(each["label"], tuple(each["box"][side] for side in SIDES)) for each in likely]
    labels = sorted({label for label, _ in [*expected, *drawn]})
    return {
        "input_image": run.draw_boxes(row["image"], [], labels),
        "expected_image": run.draw_boxes(row["image"], expected, labels),
        "expected": ", ".join(label for label, _ in expected),
        "output_image": run.draw_boxes(row["image"], drawn, labels),
        "output": ", ".join(f"{each['label']} {each['score']:.2f}" for each in likely),
    }
