"""Masks of dataset rows and of answers, as arrays of label numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from assay.plugins import declare, run
from tasks.image_segmentation.schema import Segment


def read_mask(path: Path, categories: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Return a row's mask [height, width]: indexes into `labels`, and 255 for no label.

    Raises:
        BadMaterial: the file is not a mask with one channel.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if (
                image.mode not in {"1", "L", "P"}
                or image.width * image.height > run.MAX_IMAGE_PIXELS
            ):
                raise run.BadMaterial(f"Mask {path.name} is not a PNG of one channel of 8 bits.")
            values = np.asarray(image).astype(np.uint8)
    except run.BadMaterial:
        raise
    # Decoders raise almost any exception for a damaged file.
    except Exception as error:
        raise run.BadMaterial(f"Mask {path.name} cannot be read.") from error
    number = {label: index for index, label in enumerate(labels)}
    table = np.full(256, declare.IGNORED_PIXEL, dtype=np.uint8)
    for value, category in enumerate(categories):
        table[value] = number.get(category, declare.IGNORED_PIXEL)
    return table[values]


def from_segments(
    segments: Sequence[Segment], labels: Sequence[str], size: tuple[int, int]
) -> np.ndarray:
    """Return the masks of an answer as one array [height, width]; 255 means no label."""
    number = {label: index for index, label in enumerate(labels)}
    mask = np.full(size, declare.IGNORED_PIXEL, dtype=np.uint8)
    for segment in segments:
        with Image.open(io.BytesIO(base64.b64decode(segment["mask"])), formats=["PNG"]) as image:
            mask[np.asarray(image) > 0] = number[segment["label"]]
    return mask


def crowded(labels: Sequence[str]) -> None:
    """Raise BadMaterial when there are more labels than a mask can number."""
    if len(labels) > declare.IGNORED_PIXEL:
        raise run.BadMaterial(
            f"There are {len(labels)} categories; at most {declare.IGNORED_PIXEL} are used."
        )
