"""Simple object detectors that a trained one has to beat, measured on the same images.

One finds regions that differ from the background: pixels whose distance from the image's border
color is above Otsu's threshold, joined to connected components (scipy). The other returns the
average box for every image. Both use the most frequent label for every box.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from assay.plugins import run
from tasks.object_detection.schema import Box, Detection

COMPONENTS = "Foreground regions + most frequent label"
CONSTANT = "Average box + most frequent label"
# Larger images are scaled down first.
SIDE = 256
# Components below this share of the image are noise.
MIN_SHARE = 0.002
MAX_COMPONENTS = 100


def majority_label(rows: Sequence[dict[str, Any]]) -> str:
    """Return the most frequent label of the rows' boxes; an empty text without boxes."""
    counts = Counter(label for row in rows for label in row["objects"]["categories"])
    return counts.most_common(1)[0][0] if counts else ""


def components(images: Sequence[Path], label: str, progress: run.Progress) -> list[list[Detection]]:
    """Return a box around each region that differs from the background, the largest first.

    Raises:
        Canceled: `progress` requests a stop.
    """
    boxes: list[list[Detection]] = []
    for number, path in enumerate(images):
        if number % 64 == 0 and progress.should_stop():
            raise run.Canceled
        try:
            boxes.append(_components(run.read_image(path), label))
        except run.UnreadableImage:
            boxes.append([])
    return boxes


def _components(image: Image.Image, label: str) -> list[Detection]:
    width, height = image.size
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    pixels = ndimage.gaussian_filter(np.asarray(small, dtype=np.float32), (1, 1, 0))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    distance = np.abs(pixels - np.median(border, axis=0)).max(axis=2)
    parts, _ = ndimage.label(distance > run.otsu_threshold(distance))
    places = ndimage.find_objects(parts)
    sizes = np.bincount(parts.reshape(-1))[1:]
    boxes: list[Detection] = []
    for index in np.argsort(-sizes, kind="stable")[:MAX_COMPONENTS]:
        if sizes[index] < MIN_SHARE * distance.size:
            break
        rows, columns = places[index]
        scale_x, scale_y = width / small.width, height / small.height
        box: Box = {
            "xmin": columns.start * scale_x,
            "ymin": rows.start * scale_y,
            "xmax": columns.stop * scale_x,
            "ymax": rows.stop * scale_y,
        }
        boxes.append({"label": label, "score": float(sizes[index] / distance.size), "box": box})
    return boxes


def constant(
    rows: Sequence[dict[str, Any]], images: Sequence[Path], label: str
) -> list[list[Detection]]:
    """Return for each image the average box of `rows`, scaled to the image."""
    shares = []
    for row in rows:
        with Image.open(row["image"]) as image:
            side = np.array([image.width, image.height] * 2, dtype=np.float64)
        boxes = np.array(row["objects"]["bbox"], dtype=np.float64).reshape(-1, 4)
        shares.append(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) / side)
    every = np.concatenate(shares) if shares else np.zeros((0, 4))
    if not len(every):
        return [[] for _ in images]
    mean = every.mean(axis=0)
    answers: list[list[Detection]] = []
    for path in images:
        with Image.open(path) as image:
            xmin, ymin, xmax, ymax = (mean * ([image.width, image.height] * 2)).tolist()
            box: Box = {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax}
        answers.append([{"label": label, "score": 1.0, "box": box}])
    return answers
