"""Bounds on the work of an image decoder, checked before the decoder gets a byte of the file.

Each format is walked once, part by part, in linear time. Otherwise a few bytes can cost minutes: an
empty scan of a JPEG processes all of its pixels, compressed text in a PNG unpacks a thousandfold,
and a later frame of a GIF may have any size. Damaged parts are left to the decoder. Loads no
decoder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from mmap import mmap

from registry.media.errors import MediaRejected
from registry.media.limits import MediaLimits

# Cameras write up to 12 scans; each processes all pixels.
SCANS_MAX = 100
SCANS_OF_LARGEST = 16
# Maximum other parts of a file, such as metadata, profiles and thumbnails.
PARTS_MAX = 2_000
COMPRESSED_PARTS_MAX = 32
NOTES_MAX_BYTES = 1024**2
# Minimum average block size of a GIF; encoders write full blocks of 255 bytes.
_GIF_BLOCK_BYTES = 16
_PNG_CHUNK_BYTES = 256
_RESAVE = "Save the image again, as PNG or JPEG."
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_BASELINE_TO_PROGRESSIVE = b"\xc0\xc1\xc2"
_FRAME_HEADERS = b"\xc3\xc5\xc6\xc7\xc9\xca\xcb\xcd\xce\xcf"
Data = bytes | mmap


@dataclass(frozen=True, slots=True)
class Extent:
    """Decoding work by a file's header: pixels of a frame, frames, and seconds of sound."""

    pixels: int = 0
    frames: int = 1
    seconds: float = 0.0


def check_structure(data: Data, content_type: str, limits: MediaLimits, what: str) -> Extent:
    """Return the extent of an image, animated or not. Raises MediaRejected."""
    walk = _Walk(data, limits, what)
    return {
        "image/jpeg": walk.jpeg,
        "image/png": walk.png,
        "image/gif": walk.gif,
        "image/webp": walk.webp,
    }[content_type]()


class _Walk:
    def __init__(self, data: Data, limits: MediaLimits, what: str) -> None:
        self._data = data
        self._size = len(data)
        self._limits = limits
        self._what = what
        self._parts = 0

    def jpeg(self) -> Extent:
        """Walk the markers up to the end of the first picture; others may follow it."""
        at, scans, pixels = 2, 0, 0
        while match := _JPEG_MARKER.search(self._data, at):
            marker, at = self._data[match.end() - 1], match.end()
            if marker == 0xD9:
                break
            if marker in (0x01, 0xD8):
                continue
            self._part()
            length = self._number(at, 2, "big")
            if marker in _FRAME_HEADERS:
                raise self._rejected("is compressed in a way that browsers do not show")
            if marker in _BASELINE_TO_PROGRESSIVE:
                height, width = self._number(at + 3, 2, "big"), self._number(at + 5, 2, "big")
                pixels = max(pixels, width * height)
            if marker == 0xDA:
                scans += 1
                if scans > SCANS_MAX or scans * pixels > SCANS_OF_LARGEST * self._limits.pixels:
                    raise self._rejected(
                        f"has more than {min(scans - 1, SCANS_MAX)} scans, each of which goes over "
                        "all of its pixels"
                    )
            at += length
        return Extent(pixels)

    def png(self) -> Extent:
        """Walk the chunks."""
        at, pixels, frames, compressed, data = 8, 0, 0, 0, 0
        while at + 8 <= self._size:
            length, kind = self._number(at, 4, "big"), bytes(self._data[at + 4 : at + 8])
            body = at + 8
            if kind == b"IHDR":
                pixels = self._number(body, 4, "big") * self._number(body + 4, 4, "big")
            elif kind == b"fcTL":
                frames += 1
            elif kind in (b"iCCP", b"zTXt") or (kind == b"iTXt" and self._packed(body, length)):
                compressed += 1
                if compressed > COMPRESSED_PARTS_MAX:
                    raise self._rejected(f"has more than {COMPRESSED_PARTS_MAX} compressed notes")
            if kind in (b"IDAT", b"fdAT"):
                data += 1
                if data > PARTS_MAX + self._size // _PNG_CHUNK_BYTES:
                    raise self._rejected("is cut into needlessly many parts")
            elif kind != b"fcTL":
                self._part()
            elif frames > self._limits.frames:
                break
            if kind == b"IEND":
                break
            at = body + length + 4
        return Extent(pixels, max(frames, 1))

    def gif(self) -> Extent:
        """Walk the blocks; frames may have any position, and enlarge the picture."""
        width, height = self._number(6, 2), self._number(8, 2)
        at = 13 + self._colors(10)
        frames = notes = self._blocks = 0
        while at < self._size:
            kind = self._data[at]
            if kind == 0x2C:
                frames += 1
                left, top, wide, high = (self._number(at + place, 2) for place in (1, 3, 5, 7))
                width, height = max(width, left + wide), max(height, top + high)
                at = self._after_blocks(at + 11 + self._colors(at + 9))
                if frames > self._limits.frames:
                    break
            elif kind == 0x21:
                self._part(2 * self._limits.frames)
                end = self._after_blocks(at + 2)
                notes += end - at if self._data[at + 1 : at + 2] != b"\xf9" else 0
                if notes > NOTES_MAX_BYTES:
                    raise self._rejected(f"has more than {NOTES_MAX_BYTES:,} bytes of notes")
                at = end
            elif kind == 0x3B:
                break
            else:
                at += 1
        return Extent(width * height, max(frames, 1))

    def webp(self) -> Extent:
        """Walk the chunks."""
        at, pixels, frames = 12, 0, 0
        while at + 8 <= self._size:
            kind, length = bytes(self._data[at : at + 4]), self._number(at + 4, 4)
            body = at + 8
            if kind == b"VP8X":
                canvas = (self._number(body + place, 3) + 1 for place in (4, 7))
                pixels = max(pixels, next(canvas) * next(canvas))
            elif kind == b"VP8 ":
                pixels = max(
                    pixels,
                    (self._number(body + 6, 2) & 0x3FFF) * (self._number(body + 8, 2) & 0x3FFF),
                )
            elif kind == b"VP8L":
                bits = self._number(body + 1, 4)
                pixels = max(pixels, ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1))
            elif kind == b"ANMF":
                frames += 1
                if frames > self._limits.frames:
                    break
            else:
                self._part()
            at = body + length + length % 2
        return Extent(pixels, max(frames, 1))

    def _part(self, more: int = 0) -> None:
        self._parts += 1
        if self._parts > PARTS_MAX + more:
            raise self._rejected(f"has more than {PARTS_MAX + more:,} parts besides its pixels")

    def _packed(self, at: int, length: int) -> bool:
        """Return whether an iTXt chunk is compressed, by the flag after its keyword."""
        end = self._data.find(b"\0", at, at + min(length, 80))
        return end >= 0 and self._data[end + 1 : end + 2] == b"\1"

    def _colors(self, at: int) -> int:
        """Return the size in bytes of the color table, by a GIF's flags."""
        flags = self._number(at, 1)
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    def _after_blocks(self, at: int) -> int:
        """Return the position after blocks of data, each of which begins with its length."""
        while at < self._size and (length := self._data[at]):
            self._blocks += 1
            at += 1 + length
        if self._blocks > PARTS_MAX + self._size // _GIF_BLOCK_BYTES:
            raise self._rejected("is cut into needlessly many parts")
        return at + 1

    def _number(self, at: int, length: int, order: str = "little") -> int:
        # Beyond the end the number is too small; the decoder then finds the file damaged.
        return int.from_bytes(self._data[at : at + length], order)  # type: ignore[arg-type]

    def _rejected(self, reason: str) -> MediaRejected:
        return MediaRejected(f"{self._what} {reason}; it was not decoded.", hint=_RESAVE)
