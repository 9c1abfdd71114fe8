"""Cache of a dataset's files in the form that a recipe's model reads, bounded in size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from workers.engines.images import UnreadableImage, pixels, read_image
from workers.trainers.protocol import BadMaterial

# Beyond this size, files are read again in every epoch.
CACHE_BYTES = 2 * 1024**3

# A tensor, or a tuple of tensors.
Values = TypeVar("Values")


class TensorCache(Generic[Values]):
    """Values by number, cached from `read(number)` at the first use."""

    def __init__(self, read: Callable[[int], Values]) -> None:
        self._read = read
        self._kept: dict[int, Values] = {}
        self._room = CACHE_BYTES

    def __getitem__(self, number: int) -> Values:
        """Return the values. Raises what `read` raises."""
        if (cached := self._kept.get(number)) is not None:
            return cached
        values = self._read(number)
        parts: Any = values if isinstance(values, tuple) else (values,)
        size = sum(part.numel() * part.element_size() for part in parts)
        if size <= self._room:
            self._room -= size
            self._kept[number] = values
        return values


def read_pixels(path: Path, processor: Any) -> Tensor:
    """Return an image as [channels, height, width]. Raises BadMaterial if it cannot be read."""
    try:
        return pixels(processor, read_image(path))
    except UnreadableImage as error:
        raise BadMaterial(f"Image {path.name}: {error}") from error


def kept_images(paths: Sequence[Path], processor: Any) -> TensorCache[Tensor]:
    """Return a cache of the pixels of images, each [channels, height, width], by number."""
    return TensorCache(lambda number: read_pixels(paths[number], processor))
