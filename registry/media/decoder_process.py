"""Process that forks the decoders of files in requests.

`decoders.py` starts this module confined. A fork cannot open any file: it has only the bytes of one
file, and the libraries that were loaded before. The header of a file bounds the resources of its
fork.
"""

from __future__ import annotations

import functools
import json
import os
import resource
from collections.abc import Callable
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy
import soundfile
from PIL import Image

from governance.errors import InvalidInput
from registry.media.checks import content_type_of
from registry.media.inspection import measure_media
from registry.media.limits import MediaLimits
from registry.media.structure import Extent
from registry.sandbox import landlock
from registry.sandbox.forks import (
    MEBIBYTE,
    Answer,
    Bounds,
    address_space,
    allow_cpu,
    limit,
    run_source,
)
from registry.sandbox.system_calls import deny_new_processes

SETUP = Bounds(memory=2048 * MEBIBYTE, cpu_s=60, file=MEBIBYTE)
# Limits before a file's header is read; every file needs these resources.
LEAST_CPU_S, LEAST_MEMORY = 3, 192 * MEBIBYTE
# CPU time for the largest image, with all frames of an animation, and for the longest recording.
# Decoding takes about a fifth of it on a slow processor.
IMAGE_CPU_S, SOUND_CPU_S = 9, 30
# WebP needs the most: several copies with transparency.
BYTES_PER_PIXEL = 24
VIDEO_CPU_S, VIDEO_MEMORY = 30, 1536 * MEBIBYTE
MOST_CPU_S = LEAST_CPU_S + max(IMAGE_CPU_S, SOUND_CPU_S, VIDEO_CPU_S) + 1
# Name of the sample files that are decoded first.
SAMPLE = "A sample"
_CONTAINERS = ("video/mp4", "video/webm")


def prepare(setup: dict[str, Any]) -> tuple[Answer, Callable[[], None]]:
    """Load the decoders, with the libraries that they load for their first file."""
    limits = MediaLimits(**setup["limits"])
    for sample in (*map(_image, ("PNG", "WEBP", "GIF", "JPEG")), _sound()):
        _try(sample, limits)
    base = address_space()
    sealed: list[bool] = []

    def begin() -> None:
        deny_new_processes()
        for kind, most in (
            (resource.RLIMIT_AS, base + max(VIDEO_MEMORY, image_memory(limits.pixels))),
            (resource.RLIMIT_CPU, 4 * MOST_CPU_S),  # for all of its files
        ):
            resource.setrlimit(kind, (most, most))

    def answer(request: dict[str, Any], files: list[int]) -> bytes:
        path = Path(f"/proc/self/fd/{files[0]}")
        head = os.pread(files[0], 64, 0)
        if content_type_of(head) in _CONTAINERS and request["kind"] == "video":
            # Imported only here: it takes 0.2 s and 60 MiB, which other files do not need.
            import cv2  # noqa: F401

            allow_cpu(VIDEO_CPU_S)
            limit(resource.RLIMIT_AS, base + VIDEO_MEMORY)
        else:
            allow_cpu(LEAST_CPU_S)
            limit(resource.RLIMIT_AS, base + LEAST_MEMORY)
        if setup["confined"] and not sealed:
            # A separate Landlock domain, without access to files or sibling processes.
            landlock.confine(landlock.nothing())
            sealed.append(True)
        try:
            media, image = measure_media(
                path,
                limits,
                kind=request["kind"],
                what=request["what"],
                allow=functools.partial(_allow, limits, base),
            )
        except InvalidInput as refused:
            return json.dumps({"refused": refused.message, "hint": refused.hint}).encode()
        if image is not None:
            image.close()
        return json.dumps({"media": asdict(media)}).encode()

    return answer, begin


def _allow(limits: MediaLimits, base: int, extent: Extent) -> None:
    """Set this process's limits to the needs of a file of this extent."""
    pixels = min(extent.pixels, limits.pixels)
    # An image with `SCANS_OF_LARGEST` scans of its pixels takes as long as the largest one.
    whole = max(pixels / limits.pixels, min(1, pixels * extent.frames / limits.video_pixels))
    seconds = IMAGE_CPU_S * whole + SOUND_CPU_S * min(1, extent.seconds / limits.seconds)
    allow_cpu(LEAST_CPU_S + seconds)
    limit(resource.RLIMIT_AS, base + image_memory(pixels))


def image_memory(pixels: int) -> int:
    """Return the memory limit in bytes for decoding an image with this number of pixels."""
    return LEAST_MEMORY + BYTES_PER_PIXEL * pixels


def _image(name: str) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (8, 8)).save(stream, name)
    return stream.getvalue()


def _try(sample: bytes, limits: MediaLimits) -> None:
    file = os.memfd_create("assay-sample")
    try:
        os.write(file, sample)
        _, image = measure_media(Path(f"/proc/self/fd/{file}"), limits, kind=None, what=SAMPLE)
        if image is not None:
            image.getexif()
            image.close()
    finally:
        os.close(file)


def _sound() -> bytes:
    stream = BytesIO()
    soundfile.write(stream, numpy.zeros(64, "float32"), 8_000, format="OGG", subtype="VORBIS")
    return stream.getvalue()


if __name__ == "__main__":
    run_source(prepare, SETUP)
