"""Images that look alike: a 64-bit difference hash, compared by Hamming distance.

The hash is that of shrinking an image to 9 × 8 gray pixels and noting where each is brighter than
its right neighbor. It survives scaling, recompression and small changes of color; it does not
survive cropping, rotation or mirroring, and images without structure may look alike by accident.
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
# Of one search, so that images that agree in one part cannot make it take forever.
MAX_COMPARISONS = 5_000_000


def difference_hash(image: Image.Image) -> int:
    """Return the 64 bits of a decoded image."""
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


class Looks:
    """A set of hashes that finds near ones. Once `MAX_COMPARISONS` are spent, `exhausted` is true
    and only equal hashes are found.

    A hash of all zeros is that of an image without structure, such as one color. It tells nothing,
    so that it is near to none.
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
        """Add one hash."""
        if bits and bits not in self._known:
            self._known.add(bits)
            for key in _keys(bits):
                self._parts.setdefault(key, []).append(bits)
        return self

    def near(self, bits: int) -> bool:
        """Return whether there is a hash within `DISTANCE`."""
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
