"""Bounded reading of a short video, an animated GIF, WebP or PNG, frame by frame.

Pillow decodes these three, like single images; `containers.py` decodes MP4 and WebM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from PIL import Image

from registry.media.errors import MediaRejected
from registry.media.limits import MediaLimits

FORMATS = {"image/gif": "GIF", "image/webp": "WEBP", "image/png": "PNG"}
_RESAVE = "Save the video again, as an animated WebP, GIF or PNG."


@dataclass(frozen=True, slots=True)
class Video:
    """Measures of a video."""

    width: int
    height: int
    frames: int
    seconds: float


def read_video(file: IO[bytes], content_type: str, limits: MediaLimits, what: str) -> Video:
    """Decode a video to its end and return its measures. Raises MediaRejected."""
    name = FORMATS[content_type]
    try:
        image = Image.open(file, formats=[name])
    except Exception as error:
        raise MediaRejected(f"{what} is not a readable {name} file.", hint=_RESAVE) from error
    with image:
        check_frame_size(*image.size, limits, what)
        frames, milliseconds = 0, 0.0
        for duration in _frames(image, name, limits, what):
            frames += 1
            milliseconds += duration
            width, height = image.size
            check_length(frames, width * height, milliseconds / 1000, limits, what)
    if frames < 2:
        raise MediaRejected(
            f"{what} is a single picture; a video is expected.",
            hint="Send MP4 or WebM, or an animated WebP, GIF or PNG.",
        )
    return Video(width, height, frames, round(milliseconds / 1000, 3))


def _frames(image: Image.Image, name: str, limits: MediaLimits, what: str) -> Iterator[float]:
    """Decode each frame and yield its duration in milliseconds."""
    number = 0
    while True:
        try:
            image.seek(number)
            # A later frame of a GIF may be larger than all before it.
            check_frame_size(*image.size, limits, what)
            image.load()
            duration = float(image.info.get("duration") or 0)
        except EOFError:
            break
        except (MemoryError, MediaRejected):
            raise
        # Decoders raise nearly any exception for a damaged file, even struct.error.
        except Exception as error:
            raise MediaRejected(
                f"{what} is a truncated or damaged {name} file.", hint=_RESAVE
            ) from error
        yield max(duration, 0.0)
        number += 1
    # WebP and PNG state the number of frames; for GIF, Pillow counts them.
    if name != "GIF" and number < getattr(image, "n_frames", 1):
        raise MediaRejected(f"{what} is a truncated {name} file.", hint=_RESAVE)


def check_frame_size(width: int, height: int, limits: MediaLimits, what: str) -> None:
    """Raise MediaRejected if frames of this size exceed the limits."""
    if width * height > limits.pixels or max(width, height) > limits.side or not width * height:
        raise MediaRejected(
            f"{what} has frames of {width:,} × {height:,} pixels; at most {limits.pixels:,} "
            f"pixels and {limits.side:,} on a side are accepted, and it was not decoded.",
            hint="Scale the video down. ASSAY_MEDIA_MAX_PIXELS sets the limit.",
        )


def check_length(frames: int, pixels: int, seconds: float, limits: MediaLimits, what: str) -> None:
    """Raise MediaRejected if the frames, their total pixels or the seconds exceed the limits."""
    if frames > limits.frames:
        raise MediaRejected(
            f"{what} has more than {limits.frames:,} frames.",
            hint="Cut it, or leave frames out. ASSAY_MEDIA_MAX_FRAMES sets the limit.",
        )
    if frames * pixels > limits.video_pixels:
        raise MediaRejected(
            f"{what} has more than {limits.video_pixels:,} pixels in all of its frames.",
            hint="Scale it down, or cut it. ASSAY_MEDIA_MAX_VIDEO_PIXELS sets the limit.",
        )
    if seconds > limits.seconds:
        raise MediaRejected(
            f"{what} lasts longer than {limits.seconds:,} seconds.",
            hint="Cut the video. ASSAY_MEDIA_MAX_SECONDS sets the limit.",
        )
