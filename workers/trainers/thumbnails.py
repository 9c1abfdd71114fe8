"""Thumbnails for an evaluation's samples, for reviewers."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

# This limits any picture to 27 kB in base64.
SIDE = 80


def thumbnail(source: Path | Image.Image) -> str:
    """Return a picture, scaled to fit into 80 × 80 pixels, as a PNG in a data URL."""
    image = Image.open(source) if isinstance(source, Path) else source
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
