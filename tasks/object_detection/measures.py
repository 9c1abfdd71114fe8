"""Average precision of boxes, as COCO measures it, by torchmetrics and pycocotools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from tasks.object_detection.schema import Detection


def corners(objects: Mapping[str, Any], width: int, height: int) -> Tensor:
    """Return the boxes of a row as [boxes, 4] corners, cut off at the edges of the image."""
    boxes = torch.tensor(objects["bbox"], dtype=torch.float32).reshape(-1, 4)
    edges = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    return edges.clamp(torch.zeros(4), torch.tensor([width, height, width, height]).float())


def average_precision(
    truth: Sequence[Mapping[str, Any]],
    answers: Sequence[Sequence[Detection]],
    labels: Sequence[str],
) -> dict[str, float]:
    """Return COCO's measures, and the average precision of each label as `ap_<label>`.

    Labels that are missing in `truth` are left out: they have no average precision.
    """
    number = {label: index for index, label in enumerate(labels)}
    metric = MeanAveragePrecision(
        box_format="xyxy", class_metrics=True, backend="pycocotools", sync_on_compute=False
    )
    # A row has at most 1,000 boxes; COCO uses the best 100 answers.
    metric.warn_on_many_detections = False
    for objects, each in zip(truth, answers, strict=True):
        boxes = torch.tensor(objects["bbox"], dtype=torch.float32).reshape(-1, 4)
        metric.update(
            [
                {
                    "boxes": torch.tensor(
                        [list(one["box"].values()) for one in each], dtype=torch.float32
                    ).reshape(-1, 4),
                    "scores": torch.tensor([one["score"] for one in each]),
                    "labels": torch.tensor(
                        [number[one["label"]] for one in each], dtype=torch.int64
                    ),
                }
            ],
            [
                {
                    "boxes": torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
                    "labels": torch.tensor(
                        [number[label] for label in objects["categories"]], dtype=torch.int64
                    ),
                }
            ],
        )
    result = metric.compute()
    values = {
        "map": float(result["map"]),
        "map_50": float(result["map_50"]),
        "map_75": float(result["map_75"]),
        "recall": float(result["mar_100"]),
    }
    by_label = dict(
        zip(
            result["classes"].reshape(-1).tolist(),
            result["map_per_class"].reshape(-1).tolist(),
            strict=True,
        )
    )
    values |= {f"ap_{labels[int(index)]}": value for index, value in by_label.items() if value >= 0}
    # -1 means that a measure has no data.
    return {name: max(value, 0.0) for name, value in values.items()}
