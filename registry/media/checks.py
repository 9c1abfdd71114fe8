"""Kinds of media files, detected by their first bytes, never by their names, and their measures.

Loads no decoder: `inspection.py` decodes in separate processes. Loads neither Django nor torch.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from governance.errors import InvalidInput
from registry.media.errors import MediaRejected
from registry.media.limits import MediaLimits

Kind = Literal["image", "audio", "video"]
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
CONTAINERS = {"video/mp4": "MP4", "video/webm": "WebM"}
# First brands of MP4 files with video; recordings and pictures have other brands.
_BRANDS = frozenset(
    {b"isom", b"mp41", b"mp42", b"avc1", b"M4V ", b"MSNV", b"dash"}
    | {b"iso%d" % number for number in range(2, 10)}
)
_ANIMATIONS = frozenset({"image/gif", "image/webp", "image/png"})
_NUMBERS: dict[str, tuple[type, ...]] = {
    "size_bytes": (int,),
    **dict.fromkeys(("width", "height", "sample_rate", "channels", "frames"), (int, type(None))),
    "seconds": (int, float, type(None)),
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
        """Return the measures that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, measures: dict[str, Any]) -> Media:
        """Return the measures in JSON from `to_json`. Raises InvalidInput."""
        words = [measures.get(name) for name in ("sha256", "kind", "content_type")]
        if not (
            set(measures) <= set(cls.__dataclass_fields__)
            and all(type(word) is str for word in words)
            and _SHA256.fullmatch(measures["sha256"])
            and _may_be(measures["content_type"], measures["kind"])
            and all(type(measures.get(name)) in kinds for name, kinds in _NUMBERS.items())
        ):
            raise InvalidInput("This does not describe a media file.")
        return cls(**measures)


def check_head(
    head: bytes, size: int, limits: MediaLimits, *, kind: Kind | None, what: str
) -> tuple[str, Kind]:
    """Return the content type of a file of `size` bytes that begins with `head`, and its kind.

    Raises:
        MediaRejected: the file is empty, too large, or not of the kind `kind`.
    """
    expected = NAMES[kind] if kind else f"{NAMES['image']} image, or {NAMES['audio']} recording"
    if size == 0:
        raise MediaRejected(f"{what} is empty.", hint=f"Send {_an(expected)} file.")
    if size > limits.bytes:
        raise MediaRejected(
            f"{what} has {size:,} bytes; at most {limits.bytes:,} are accepted.",
            hint="Send a smaller or more compressed file. ASSAY_MEDIA_MAX_BYTES sets the limit.",
        )
    content_type = content_type_of(head)
    if content_type is None or (kind and not _may_be(content_type, kind)):
        finding = f"is {content_type}" if content_type else "has another format"
        raise MediaRejected(
            f"{what} {finding}; {_an(expected)} file is expected.",
            hint="The content decides, not the file's name. Convert the file.",
        )
    return content_type, kind or CONTENT_TYPES[content_type]


def _may_be(content_type: str, kind: str) -> bool:
    animated = kind == "video" and content_type in _ANIMATIONS
    return animated or CONTENT_TYPES.get(content_type) == kind


def _an(words: str) -> str:
    # "MP4" begins with a vowel sound.
    return f"an {words}" if words[0] in "aeiou" or words.startswith("MP") else f"a {words}"


def content_type_of(head: bytes) -> str | None:
    """Return the content type of a file by its first bytes; None for other formats."""
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
    # MPEG layer III: an ID3 tag, or a frame header, 11 sync bits followed by the layer.
    if head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return "audio/mpeg"
    return container_type_of(head)


def container_type_of(head: bytes) -> str | None:
    """Return the content type of an MP4 or WebM file by its first 64 bytes; None for others."""
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return "video/mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3") and b"webm" in head:
        return "video/webm"
    return None
