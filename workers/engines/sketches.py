"""Short descriptions of images and recordings that can be compared within a tolerance."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from typing import Any

from workers.engines.runner import MediaOutput

SIDE = 8  # pixels of a thumbnail in each direction
PARTS = 64  # parts of a recording whose loudness is measured
_PNG = "iVBORw0KGgo"  # beginning of a PNG in base64


def sketched(results: list[Any]) -> list[Any]:
    """Return results with a description in place of each image and recording.

    Decodes media that a model made, so call it in the engine's process.
    """
    return [_sketched(each) for each in results]


def _sketched(value: Any) -> Any:
    if isinstance(value, MediaOutput):
        return _described(value.data, value.content_type)
    if isinstance(value, str) and value.startswith(_PNG):
        try:
            return _described(base64.b64decode(value, validate=True), "image/png")
        except binascii.Error:
            return value
    if isinstance(value, dict):
        return {name: _sketched(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sketched(each) for each in value]
    return value


def _described(data: bytes, content_type: str) -> dict[str, Any]:
    kind = content_type.partition("/")[0]
    try:
        if kind == "image":
            return {"image": _thumbnail(data)}
        if kind == "audio":
            return {"audio": _loudness(data)}
    except Exception:
        # Media that the library cannot read are compared byte by byte.
        return {"sha256": hashlib.sha256(data).hexdigest()}
    return {"sha256": hashlib.sha256(data).hexdigest()}


def _thumbnail(data: bytes) -> list[float]:
    from PIL import Image  # Text engines do not need it.

    with Image.open(io.BytesIO(data)) as opened:
        small = opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return [round(each / 255, 3) for each in small.tobytes()]


def _loudness(data: bytes) -> list[float]:
    import numpy as np  # Text engines do not need these.
    import soundfile

    samples, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    parts = np.array_split(samples.mean(axis=1), PARTS)
    return [round(float(np.sqrt(np.mean(each**2))) if len(each) else 0.0, 3) for each in parts]
