"""Videos as models read them: evenly spaced frames, processed as the model's files specify.

The media check has inspected every file. A damaged file that it missed must not crash the engine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor

from registry.catalog.inputs import Media
from registry.media.checks import container_type_of
from registry.media.errors import MediaBusy, MediaRejected
from registry.media.limits import MediaLimits
from registry.media.video_process import spread_numbers, take_frames
from workers.engines.architectures import UnsupportedModel, read_json
from workers.engines.images import CONFIG, MAX_SIDE, check_sides

FORMATS = ("GIF", "WEBP", "PNG")
MAX_FRAMES = 10_000
# Pixels of all selected frames together; they are in memory at once.
MAX_PIXELS = 100_000_000
# The gateway has checked the length against its settings; time and memory bound the decoding.
_LIMITS = MediaLimits(frames=MAX_FRAMES, seconds=MAX_FRAMES * 60, video_pixels=10**12)
PROCESSOR = "VideoMAEImageProcessor"


class UnreadableVideo(ValueError):
    """The file is not a video within bounds; the message is a sentence."""


class VideosBusy(UnreadableVideo):
    """Too many videos are being decoded; the same file can be read later."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames of a video in RGB, and the size of the whole video."""

    frames: list[Image.Image]
    megapixels: int


def read_clip(file: Media, count: int) -> Clip:
    """Return `count` frames, evenly spaced from the first to the last; a shorter video repeats some
    of them. MP4 and WebM are decoded in a bounded process. Raises UnreadableVideo."""
    try:
        container = container_type_of(_head(file))
    except OSError as error:
        raise UnreadableVideo("The video cannot be read.") from error
    if container:
        return _container_clip(file, container, count)
    try:
        with Image.open(file, formats=list(FORMATS)) as image:
            total = int(getattr(image, "n_frames", 1))
            if not 2 <= total <= MAX_FRAMES:
                raise UnreadableVideo(
                    f"The file has {total:,} frames; 2 to {MAX_FRAMES:,} are read."
                )
            if image.width * image.height * count > MAX_PIXELS:
                raise UnreadableVideo(
                    f"The video has {image.width:,} × {image.height:,} pixels, which is too large. "
                    "Scale it down."
                )
            numbers = spread_numbers(total, count)
            frames = {}
            for number in range(numbers[-1] + 1):
                image.seek(number)
                if number in numbers:
                    frames[number] = image.convert("RGB")
            pixels = total * image.width * image.height
            return Clip([frames[number] for number in numbers], math.ceil(pixels / 1_000_000))
    except UnreadableVideo:
        raise
    # Decoders raise almost any error for a damaged file, even struct.error and SyntaxError.
    except Exception as error:
        raise UnreadableVideo(
            "The video cannot be read; save it again as MP4, WebM or an animated WebP."
        ) from error


def _head(file: Media) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(64)
    head = file.read(64)
    file.seek(0)
    return head


def _container_clip(file: Media, content_type: str, count: int) -> Clip:
    limits = replace(_LIMITS, pixels=MAX_PIXELS // count)
    try:
        selection = take_frames(file, content_type, count, limits, "The video")
    except MediaRejected as error:
        raise UnreadableVideo(error.message) from error
    except MediaBusy as error:
        raise VideosBusy(error.message) from error
    video = selection.video
    pixels = video.frames * video.width * video.height
    return Clip(selection.frames, math.ceil(pixels / 1_000_000))


def load_video_processor(folder: Path) -> Any:
    """Return the processor that `preprocessor_config.json` names, in its Pillow and numpy version.

    Raises:
        UnsupportedModel: the file is missing, names another processor, or sets sizes that are
            too large.
    """
    config = read_json(folder / CONFIG)
    name = str(config.get("image_processor_type", config.get("feature_extractor_type", "")))
    name = (
        name.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    )
    if name != PROCESSOR or "auto_map" in config:
        raise UnsupportedModel(f"{CONFIG} names the processor {name[:80]!r}, not {PROCESSOR}.")
    try:
        processor = getattr(transformers, f"{PROCESSOR}Pil").from_pretrained(
            folder, local_files_only=True
        )
        # Check sizes first: the probe below would make frames of any size.
        check_sides(processor)
        shape = frame_values(processor, [Image.new("RGB", (32, 32))] * 2).shape
    except UnsupportedModel:
        raise
    except Exception as error:
        raise UnsupportedModel(f"{CONFIG} cannot be used: {error}") from error
    if len(shape) != 4 or max(shape[2:]) > MAX_SIDE:
        raise UnsupportedModel(f"{CONFIG} makes frames of the shape {tuple(shape)}.")
    return processor


def frame_values(processor: Any, frames: Sequence[Image.Image]) -> Tensor:
    """Return the frames as the model reads them: [frames, channels, height, width]."""
    values: Tensor = processor(images=[list(frames)], return_tensors="pt")["pixel_values"][0]
    return values.to(torch.float32)
