"""Extract frames from an MP4 or WebM file in a separate process with bounds on time and memory
(`registry/sandbox/readers.py`).
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from governance.errors import InvalidInput, QuotaExceeded, TooLarge, Unavailable
from registry.media.containers import RESAVE, container_frames, read_container
from registry.media.errors import MediaBusy, MediaRejected
from registry.media.limits import MediaLimits
from registry.media.videos import Video, check_frame_size, check_length
from registry.sandbox.places import FairPlaces
from registry.sandbox.readers import Reach, bound_process, run_bounded

SECONDS = 30
MEMORY_BYTES = 3 * 1024**3 // 2
# Engines do not know the owner of a request: all requests share one owner, and so two places.
_places = FairPlaces(3, wait_s=30.0, refusal="Too many videos are being decoded at this moment.")
_SOURCE, _MEASURES, _FRAMES = "source", "measures.json", "frames.rgb"


@dataclass(frozen=True, slots=True)
class Frames:
    """Some frames of a video in RGB, and the measures of the whole video."""

    frames: list[Image.Image]
    video: Video


def take_frames(
    file: Path | IO[bytes], content_type: str, count: int, limits: MediaLimits, what: str
) -> Frames:
    """Decode a video to its end and return `count` frames, evenly spread from the first to the
    last, and the measures of the video.

    `limits.pixels` times `count` bounds the memory of the frames.

    Raises:
        MediaRejected: the video cannot be decoded within the bounds.
        MediaBusy: too many videos are being decoded for this process.
    """
    with tempfile.TemporaryDirectory(prefix="assay-video-") as scratch:
        folder = Path(scratch)
        source = file if isinstance(file, Path) else folder / _SOURCE
        if not isinstance(file, Path):
            source.write_bytes(file.read())
        video = _run(folder, source.resolve(), content_type, limits, what, count)
        size = video.width * video.height * 3
        try:
            data = (folder / _FRAMES).read_bytes()
        except OSError as error:
            raise _undecodable(what) from error
    if len(data) != size * count:
        raise _undecodable(what)
    shape = (video.width, video.height)
    return Frames(
        [Image.frombytes("RGB", shape, data[at : at + size]) for at in range(0, len(data), size)],
        video,
    )


def spread_numbers(total: int, count: int) -> list[int]:
    """Return the numbers of `count` evenly spread frames of `total`, from the first to the last."""
    return [int(number) for number in np.linspace(0, total - 1, count).round()]


def _run(
    folder: Path, source: Path, content_type: str, limits: MediaLimits, what: str, count: int
) -> Video:
    request = {
        "source": str(source),
        "target": str(folder),
        "content_type": content_type,
        "limits": asdict(limits),
        "what": what,
        "count": count,
    }
    with _rejections():
        run_bounded(
            "registry.media.video_process",
            request,
            reach=Reach(read=[source], own=[folder]),
            seconds=SECONDS,
            memory_bytes=MEMORY_BYTES,
            places=_places,
            owner="",
        )
    try:
        video = Video(**json.loads((folder / _MEASURES).read_text()))
        check_frame_size(video.width, video.height, limits, what)
        check_length(video.frames, video.width * video.height, video.seconds, limits, what)
    except (OSError, ValueError, TypeError) as error:
        raise _undecodable(what) from error
    return video


def _undecodable(what: str) -> MediaRejected:
    return MediaRejected(f"{what} cannot be decoded.", hint=RESAVE)


@contextmanager
def _rejections() -> Iterator[None]:
    """Convert errors of the process to `MediaRejected` and `MediaBusy`."""
    try:
        yield
    except (InvalidInput, TooLarge) as error:
        raise MediaRejected(error.message, hint=error.hint) from error
    except (QuotaExceeded, Unavailable) as error:
        raise MediaBusy(error.message, retry_after=5) from error


def _do(order: dict[str, Any]) -> None:
    source, target = Path(order["source"]), Path(order["target"])
    limits, count = MediaLimits(**order["limits"]), order["count"]
    most = limits.pixels * 3 * count + 1024**2
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    video = read_container(source, order["content_type"], limits, order["what"])
    (target / _MEASURES).write_text(json.dumps(asdict(video)))
    numbers = spread_numbers(video.frames, count)
    with (target / _FRAMES).open("wb") as output:
        for frame in container_frames(source, numbers, order["what"]):
            output.write(frame.tobytes())


if __name__ == "__main__":
    json.dump(bound_process(_do, json.load(sys.stdin)), sys.stdout)
