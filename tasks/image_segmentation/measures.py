"""Intersection over union and accuracy of masks, over the pixels of all images together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from assay.plugins import declare


def pixel_counts(truth: np.ndarray, answer: np.ndarray, labels: int) -> np.ndarray:
    """Return the confusion matrix of pixels: true labels down, predicted labels across; the last
    column counts pixels without a predicted label. Pixels without a true label are left out."""
    predicted = np.where(answer == declare.IGNORED_PIXEL, labels, answer).astype(np.int64)
    counts = multiclass_confusion_matrix(
        torch.from_numpy(predicted),
        torch.from_numpy(np.where(truth == declare.IGNORED_PIXEL, -1, truth.astype(np.int64))),
        num_classes=labels + 1,
        ignore_index=-1,
    )
    return np.asarray(counts)


def scores(counts: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Return mean IoU, pixel accuracy, and `iou_<label>` of each true or predicted label.

    `counts` is the sum of `pixel_counts` over the images.
    """
    right = np.diag(counts)[: len(labels)].astype(np.float64)
    union = counts.sum(0)[: len(labels)] + counts.sum(1)[: len(labels)] - right
    present = union > 0
    shares = np.where(present, right / np.maximum(union, 1), 0.0)
    return {
        "mean_iou": float(shares[present].mean()) if present.any() else 0.0,
        "pixel_accuracy": float(right.sum() / max(counts.sum(), 1)),
        **{
            f"iou_{label}": float(share)
            for label, share, is_present in zip(labels, shares, present, strict=True)
            if is_present
        },
    }
