"""Simple segmenters that a trained one has to beat, measured on the same images.

One splits each image by Otsu's threshold on the distance from its border color, and gives the
pixels above it the most frequent label after the background. The other gives all pixels the most
frequent label.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from assay.plugins import run

OTSU = "Otsu's threshold + most frequent labels"
CONSTANT = "Most frequent label everywhere"


def frequent(masks: Sequence[np.ndarray], labels: int) -> tuple[int, int]:
    """Return the two most frequent labels; the same label twice if there is only one."""
    counts = sum(
        (np.bincount(mask.reshape(-1), minlength=256)[:labels] for mask in masks),
        np.zeros(labels, dtype=np.int64),
    )
    ranked = np.argsort(-counts, kind="stable")
    second = ranked[1] if labels > 1 and counts[ranked[1]] else ranked[0]
    return int(ranked[0]), int(second)


def otsu(path: Path, size: tuple[int, int], labels: tuple[int, int]) -> np.ndarray:
    """Return a mask of the first label, with the second label on pixels above Otsu's threshold."""
    try:
        image = run.read_image(path)
    except run.UnreadableImage:
        return np.full(size, labels[0], dtype=np.uint8)
    pixels = ndimage.gaussian_filter(np.asarray(image, dtype=np.float32), (1, 1, 0))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    distance = np.abs(pixels - np.median(border, axis=0)).max(axis=2)
    out = distance > run.otsu_threshold(distance)
    return np.where(out, labels[1], labels[0]).astype(np.uint8)
