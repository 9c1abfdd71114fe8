"""Check an image, a recording or a video by its content, never by its name.

The header is read first and held against the limits; only then is everything decoded, to find a
truncated file. Decoders are native code that has had defects, so files from people are decoded in a
process of their own where there are many (`registry/datasets/unpacking.py` for dataset uploads).
For the one small file of an inference request, a thread of the web process is accepted: bytes,
pixels and seconds are bounded before anything is decoded, only the decoder of the format that the
first bytes name is used, and `AT_ONCE` files of a process are decoded at the same time. MP4 and
WebM are decoded in a bounded process alone.

This module knows no Django and no torch.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from governance.errors import InvalidInput, Unavailable
from registry.media.audio import read_audio
from registry.media.containers import FORMATS as CONTAINERS
from registry.media.containers import container_type_of, read_container
from registry.media.errors import MediaRejected
from registry.media.images import read_image
from registry.media.limits import MediaLimits
from registry.media.video_process import measure_video
from registry.media.videos import FORMATS as ANIMATIONS
from registry.media.videos import Video, read_video

Kind = Literal["image", "audio", "video"]
# Decoded images of a process take at most this many times `pixels` × 4 bytes.
AT_ONCE = 2
WAIT_S = 10.0
CONTENT_TYPES: dict[str, Kind] = {
    "image/png": "image",
    "image/jpeg": "image",
    "image/webp": "image",
    "image/gif": "image",
    "audio/wav": "audio",
    "audio/flac": "audio",
    "audio/ogg": "audio",
    "audio/mpeg": "audio",
    "video/mp4": "video",
    "video/webm": "video",
}
NAMES: dict[str, str] = {
    "image": "PNG, JPEG, WebP or GIF",
    "audio": "WAV, FLAC, OGG or MP3",
    "video": "MP4, WebM, or animated WebP, GIF or PNG",
}
_slots = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True, slots=True)
class Media:
    """One checked file. Images have a width and height; audio has seconds, a sample rate and
    channels; videos have a width, a height, seconds and frames."""

    sha256: str
    kind: Kind
    content_type: str
    size_bytes: int
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    sample_rate: int | None = None
    channels: int | None = None
    frames: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the measures that the file has."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Media:
        """Read what `to_json` wrote. Raises InvalidInput."""
        try:
            media = cls(**given)
        except TypeError as error:
            raise InvalidInput("This does not describe a media file.") from error
        if not _may_be(media.content_type, media.kind):
            raise InvalidInput("This does not describe a media file.")
        return media


def check_media(
    source: bytes | Path,
    limits: MediaLimits,
    *,
    kind: Kind | None = None,
    what: str = "The file",
) -> Media:
    """Check one file, given as bytes or as a path, and return its measures.

    `kind` is the kind that is expected; `what` names the file in sentences. An animated image is a
    video where one is expected, and rejected elsewhere.

    Raises:
        MediaRejected: it is another kind of file, out of bounds, animated, empty or truncated.
        Unavailable: too many files are being decoded in this process.
    """
    media, image = inspect_media(source, limits, kind=kind, what=what)
    if image is not None:
        image.close()
    return media


def inspect_media(
    source: bytes | Path,
    limits: MediaLimits,
    *,
    kind: Kind | None = None,
    what: str = "The file",
    bounded: bool = False,
) -> tuple[Media, Image.Image | None]:
    """Check as `check_media` does; also return the decoded image, which the caller closes.

    A `bounded` process decodes MP4 and WebM itself; `source` is then a path.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    expected = NAMES[kind] if kind else f"{NAMES['image']} image, or {NAMES['audio']} recording"
    if size == 0:
        raise MediaRejected(f"{what} is empty.", hint=f"Send {_an(expected)} file.")
    if size > limits.bytes:
        raise MediaRejected(
            f"{what} has {size:,} bytes; at most {limits.bytes:,} are accepted.",
            hint="Send a smaller or more compressed file. ASSAY_MEDIA_MAX_BYTES sets the limit.",
        )
    data = source if isinstance(source, bytes) else source.read_bytes()
    content_type = content_type_of(data[:64])
    if content_type is None or (kind and not _may_be(content_type, kind)):
        found = f"is {content_type}" if content_type else "has another format"
        raise MediaRejected(
            f"{what} {found}; {_an(expected)} file is expected.",
            hint="The content decides, not the file's name. Convert the file.",
        )
    kind = kind or CONTENT_TYPES[content_type]
    if kind == "video" and content_type in CONTAINERS:
        # Processes have slots of their own: a slow video keeps no image waiting.
        if bounded and isinstance(source, Path):
            video = read_container(source, content_type, limits, what)
        else:
            video = measure_video(data, content_type, limits, what)
        return _described(data, content_type, video), None
    if not _slots.acquire(timeout=WAIT_S):
        raise Unavailable("Too many files are being checked at this moment.", retry_after=5)
    try:
        return _decode(data, content_type, kind, limits, what)
    finally:
        _slots.release()


def _decode(
    data: bytes, content_type: str, kind: Kind, limits: MediaLimits, what: str
) -> tuple[Media, Image.Image | None]:
    digest = hashlib.sha256(data).hexdigest()
    if kind == "video":
        return _described(data, content_type, read_video(data, content_type, limits, what)), None
    if kind == "image":
        image = read_image(BytesIO(data), content_type, limits, what)
        width, height = image.size
        return Media(digest, kind, content_type, len(data), width, height), image
    audio = read_audio(data, content_type, limits, what)
    return (
        Media(
            sha256=digest,
            kind=kind,
            content_type=content_type,
            size_bytes=len(data),
            seconds=audio.seconds,
            sample_rate=audio.sample_rate,
            channels=audio.channels,
        ),
        None,
    )


def _described(data: bytes, content_type: str, video: Video) -> Media:
    return Media(
        sha256=hashlib.sha256(data).hexdigest(),
        kind="video",
        content_type=content_type,
        size_bytes=len(data),
        width=video.width,
        height=video.height,
        seconds=video.seconds,
        frames=video.frames,
    )


def _may_be(content_type: str, kind: str) -> bool:
    animated = kind == "video" and content_type in ANIMATIONS
    return animated or CONTENT_TYPES.get(content_type) == kind


def _an(words: str) -> str:
    # "MP4" begins with the sound of a vowel.
    return f"an {words}" if words[0] in "aeiou" or words.startswith("MP") else f"a {words}"


def content_type_of(head: bytes) -> str | None:
    """Return the content type that the first bytes of a file tell, or None for other formats."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return "audio/wav"
    if head.startswith(b"fLaC"):
        return "audio/flac"
    if head.startswith(b"OggS"):
        return "audio/ogg"
    # MPEG layer III: an ID3 tag, or the 11 bits that begin a frame and the layer after them.
    if head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return "audio/mpeg"
    return container_type_of(head)
