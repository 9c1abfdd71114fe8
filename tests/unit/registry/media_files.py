"""Small real images and recordings, and broken ones, for the tests of media."""

from __future__ import annotations

import atexit
import struct
import tempfile
import zipfile
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import soundfile
from PIL import Image

from registry.media.checks import Kind, Media
from registry.media.decoders import Decoders
from registry.media.inspection import inspect_media
from registry.media.limits import MediaLimits


def inspected(
    data: bytes, limits: MediaLimits, *, kind: Kind | None = None, what: str = "The file"
) -> Media:
    """The measures of a file that is decoded in this process."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        media, image = inspect_media(Path(file.name), limits, kind=kind, what=what)
    if image is not None:
        image.close()
    return media


@cache
def _decoders(limits: MediaLimits) -> Decoders:
    decoders = Decoders(limits)
    atexit.register(decoders.close)
    return decoders


def decoded(
    data: bytes, limits: MediaLimits, *, kind: Kind | None = None, what: str = "The file"
) -> Media:
    """The measures of a file that is decoded as a request's."""
    return _decoders(limits).measure(data, kind=kind, what=what)


def picture(
    seed: int = 0, size: tuple[int, int] = (64, 48), form: str = "PNG", **options: Any
) -> bytes:
    """A smooth random image: scaling or recompressing it leaves it looking the same."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype="uint8")
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return saved(image, form, **options)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    output = BytesIO()
    image.save(output, form, **options)
    return output.getvalue()


def animated(form: str) -> bytes:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "green", "blue")]
    return saved(frames[0], form, save_all=True, append_images=frames[1:], duration=100)


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header states a size, with no pixels after it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def sound(
    seconds: float = 0.5, rate: int = 16_000, form: str = "WAV", channels: int = 1, **options: Any
) -> bytes:
    frames = np.arange(int(seconds * rate))
    tone = (np.sin(frames * 0.05) * 0.5).astype("float32")
    output = BytesIO()
    soundfile.write(
        output, np.repeat(tone[:, None], channels, axis=1), rate, format=form, **options
    )
    return output.getvalue()


def not_a_number() -> bytes:
    samples = np.zeros(1000, dtype="float32")
    samples[500] = np.nan
    output = BytesIO()
    soundfile.write(output, samples, 16_000, format="WAV", subtype="FLOAT")
    return output.getvalue()


def wav_header(seconds: int, rate: int = 16_000) -> bytes:
    """A WAV file whose header states a length, with next to no sound after it."""
    size = min(seconds * rate * 2, 2**32 - 100)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    data = struct.pack("<4sI", b"data", size) + b"\0" * 64
    return struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form + data


def archive(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of these entries, in this order."""
    output = BytesIO()
    with zipfile.ZipFile(output, "w", method) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return output.getvalue()


def parquet(columns: dict[str, list[Any]], metadata: dict[str, str] | None = None) -> bytes:
    """A Parquet file of these columns."""
    table = pyarrow.table(columns)
    output = BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), output)
    return output.getvalue()


def container(
    form: str = "webm", codec: str = "VP80", *, frames: int = 6, size: tuple[int, int] = (64, 48)
) -> bytes:
    """A video in which a bright bar moves to the right, at 8 frames per second."""
    import cv2

    width, height = size
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / f"video.{form}"
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), 8.0, size)
        for number in range(frames):
            field = np.full((height, width, 3), 40, np.uint8)
            at = number * width // max(frames, 1)
            field[:, at : at + width // 8] = 220
            writer.write(field)
        writer.release()
        return file.read_bytes()
