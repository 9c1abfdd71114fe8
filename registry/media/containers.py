"""Decode MP4 and WebM with OpenCV, whose wheels include FFmpeg (LGPL, without GPL parts).

Only bounded processes (`registry/sandbox`) load FFmpeg. It decodes H.264, VP8 and VP9, which
browsers play; files with other codecs are rejected before their decoder gets a byte. Loads no
Django.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from registry.media.checks import CONTAINERS
from registry.media.errors import MediaRejected
from registry.media.limits import MediaLimits
from registry.media.videos import Video, check_frame_size, check_length

CODECS = frozenset({"h264", "avc1", "VP80", "VP90"})
RESAVE = "Save the video again, as MP4 (H.264) or WebM (VP8 or VP9)."
# Maximum top-level boxes of an MP4 file. Cameras write four or five; streams two for each second.
BOXES_MAX = 10_000
_SEGMENT = b"\x18\x53\x80\x67"
# FFmpeg opens no other file or address that a file names, and tries only these formats and codecs.
_OPTIONS = (
    "protocol_whitelist;file|format_whitelist;mov,mp4,m4a,3gp,3g2,mj2,matroska,webm"
    "|codec_whitelist;h264,vp8,vp9"
)


def read_container(path: Path, content_type: str, limits: MediaLimits, what: str) -> Video:
    """Decode a video to its end and return its measures. Raises MediaRejected."""
    name = CONTAINERS[content_type]
    if not _is_whole(path, content_type):
        raise MediaRejected(f"{what} is a truncated or damaged {name} file.", hint=RESAVE)
    with _opened(path, what) as capture:
        width, height = _size(capture)
        check_frame_size(width, height, limits, what)
        frames, seconds, rate = 0, 0.0, _rate(capture)
        for picture in _pictures(capture):
            if picture.shape != (height, width, 3):
                raise MediaRejected(f"{what} has frames of several sizes.", hint=RESAVE)
            frames += 1
            seconds = max(seconds, _milliseconds(capture) / 1000 + 1 / rate)
            check_length(frames, width * height, seconds, limits, what)
    if frames < 2:
        raise MediaRejected(
            f"{what} has too few frames that can be decoded; a video has at least 2.", hint=RESAVE
        )
    return Video(width, height, frames, round(seconds, 3))


def container_frames(path: Path, numbers: Sequence[int], what: str) -> list[Image.Image]:
    """Return the frames with these numbers of a checked file. Raises MediaRejected."""
    requested, frames = set(numbers), {}
    with _opened(path, what) as capture:
        for number, picture in enumerate(_pictures(capture)):
            if number in requested:
                frames[number] = Image.fromarray(picture[:, :, ::-1])
            if number >= max(requested):
                break
    if len(frames) < len(requested):
        raise MediaRejected(f"{what} has fewer frames than were requested.", hint=RESAVE)
    return [frames[number] for number in numbers]


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Any]:
    """Yield a capture of a file with an accepted codec, before any decoding."""
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = _OPTIONS
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            raise MediaRejected(f"{what} holds no video that can be read.", hint=RESAVE)
        fourcc = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        codec = fourcc.to_bytes(4, "little").decode("latin-1")
        if codec not in CODECS:
            raise MediaRejected(
                f"{what} has the codec {codec!r}; H.264, VP8 and VP9 are read.",
                hint=RESAVE,
            )
        yield capture
    finally:
        capture.release()


def _pictures(capture: Any) -> Iterator[Any]:
    """Yield each decoded frame: an array [height, width, 3] in the order blue, green, red."""
    while True:
        read, picture = capture.read()
        if not read:
            return
        yield picture


def _size(capture: Any) -> tuple[int, int]:
    """Return width and height of the upright frames, in pixels, from the header."""
    import cv2

    return (
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
    )


def _rate(capture: Any) -> float:
    import cv2

    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if 0.01 < rate < 1_000 else 25.0


def _milliseconds(capture: Any) -> float:
    import cv2

    return max(0.0, float(capture.get(cv2.CAP_PROP_POS_MSEC)))


def _is_whole(path: Path, content_type: str) -> bool:
    """Return whether the sizes of the top-level parts match the file's size. Decoders silently
    ignore the missing part of a truncated file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if content_type == "video/webm":
            return _segment_is_whole(file.read(4096), size)
        at, kinds = 0, set()
        for _ in range(BOXES_MAX):
            if at >= size:
                break
            file.seek(at)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            length = length or size - at
            if length < 8 or at + length > size:
                return False
            kinds.add(kind)
            at += length
    return at == size and {b"moov", b"mdat"} <= kinds


def _segment_is_whole(head: bytes, size: int) -> bool:
    at = head.find(_SEGMENT)
    if at < 0 or at + 12 > len(head):
        return False
    first = head[at + 4]
    width = 9 - first.bit_length()
    if not first:
        return False
    length = int.from_bytes(head[at + 4 : at + 4 + width], "big") & ((1 << 7 * width) - 1)
    # A recording that was never finished does not state its length.
    return length == (1 << 7 * width) - 1 or at + 4 + width + length <= size
