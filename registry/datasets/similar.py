"""Images that look alike: a 64-bit difference hash, compared by Hamming distance.

The hash shrinks an image to 9 × 8 gray pixels and has a bit for each pixel that is brighter than
its right neighbor. It is stable under scaling, recompression and small changes of color, but not
under cropping, rotation or mirroring; images without structure may look alike by accident.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from PIL import Image

DISTANCE = 4
# Two hashes within `DISTANCE` agree in at least one of five parts of their bits.
_PARTS = tuple(
    (shift, (1 << width) - 1)
    for shift, width in zip((0, 13, 26, 39, 52), (13, 13, 13, 13, 12), strict=True)
)
# Maximum comparisons of one search, to bound its time when many images agree in one part.
MAX_COMPARISONS = 5_000_000


def difference_hash(image: Image.Image) -> int:
    """Return the 64-bit hash of a decoded image."""
    if image.mode.startswith(("I", "F")):
        image = image.convert("F").point(lambda value: value / 256)
    gray = image.convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    pixels = gray.tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            left = pixels[row * 9 + column]
            bits = bits << 1 | (left > pixels[row * 9 + column + 1])
    return bits


class ImageHashes:
    """A set of hashes with a search for near ones. After `MAX_COMPARISONS`, `exhausted` is true and
    only equal hashes are found.

    Images without structure, such as a single color, have the hash zero, which is never near
    another one.
    """

    def __init__(self, hashes: Iterable[int] = ()) -> None:
        self._known: set[int] = set()
        self._parts: dict[tuple[int, int], list[int]] = {}
        self._left = MAX_COMPARISONS
        for each in hashes:
            self.add(each)

    @property
    def exhausted(self) -> bool:
        """Return whether some searches were cut short."""
        return self._left <= 0

    def add(self, bits: int) -> Self:
        if bits and bits not in self._known:
            self._known.add(bits)
            for key in _keys(bits):
                self._parts.setdefault(key, []).append(bits)
        return self

    def near(self, bits: int) -> bool:
        """Return whether the set has a hash within `DISTANCE`."""
        if bits in self._known:
            return True
        if not bits:
            return False
        for key in _keys(bits):
            for other in self._parts.get(key, ()):
                if self._left <= 0:
                    return False
                self._left -= 1
                if (bits ^ other).bit_count() <= DISTANCE:
                    return True
        return False


def _keys(bits: int) -> Iterable[tuple[int, int]]:
    return ((shift, bits >> shift & mask) for shift, mask in _PARTS)
