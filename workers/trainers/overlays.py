"""Thumbnails with boxes or a mask drawn on them, for an evaluation's samples."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from registry.catalog.regions import HUES

SIDE = 128
# This limits a picture to 22 kB in base64.
COLORS = 64
_OPACITY = 150

Corners = Sequence[float]


def with_boxes(source: Path, boxes: Sequence[tuple[str, Corners]], labels: Sequence[str]) -> str:
    """Return a thumbnail with boxes, each a label and its corners in pixels, as a PNG in a data
    URL. A label's position in `labels` selects its color."""
    small, scale = _scaled(source)
    brush = ImageDraw.Draw(small)
    for label, (xmin, ymin, xmax, ymax) in boxes:
        hue = f"#{HUES[labels.index(label) % len(HUES)]}"
        left, top = xmin * scale[0], ymin * scale[1]
        right, bottom = max(left, xmax * scale[0] - 1), max(top, ymax * scale[1] - 1)
        brush.rectangle((left, top, right, bottom), outline=hue, width=2)
    return _url(small)


def with_mask(source: Path, mask: np.ndarray) -> str:
    """Return a thumbnail with a mask [height, width] over it. A pixel's number selects its color;
    0 and 255 stay clear."""
    small, _ = _scaled(source)
    values = np.asarray(
        Image.fromarray(mask.astype(np.uint8)).resize(small.size, Image.Resampling.NEAREST)
    )
    palette = np.array(
        [list(bytes.fromhex(HUES[(value - 1) % len(HUES)])) for value in range(256)],
        dtype=np.uint8,
    )
    alpha = np.where((values > 0) & (values < 255), _OPACITY, 0).astype(np.uint8)
    small.paste(Image.fromarray(palette[values]), (0, 0), Image.fromarray(alpha))
    return _url(small)


def _scaled(source: Path) -> tuple[Image.Image, tuple[float, float]]:
    """Return the upright picture scaled to fit into `SIDE` pixels, and the scale factors."""
    with Image.open(source) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    small = ImageOps.contain(image, (SIDE, SIDE))
    return small, (small.width / image.width, small.height / image.height)


def _url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.quantize(COLORS).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
