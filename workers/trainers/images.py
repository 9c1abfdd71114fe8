"""Images of a dataset as a recipe's model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from workers.engines.images import UnreadableImage, pixels, read_image
from workers.trainers.protocol import BadMaterial, Cancelled, Progress

# Processed images are kept up to this size; beyond it they are read again in every epoch.
KEPT_BYTES = 2 * 1024**3


class ProcessedImages:
    """The pixels of files by their number, read at the first use and kept while there is room."""

    def __init__(self, paths: Sequence[Path], processor: Any, progress: Progress) -> None:
        self._paths, self._processor, self._progress = paths, processor, progress
        self._kept: dict[int, Tensor] = {}
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return [channels, height, width].

        Raises:
            BadMaterial: the file is no image.
            Cancelled: the run is to stop.
        """
        if (kept := self._kept.get(index)) is not None:
            return kept
        if self._progress.should_stop():
            raise Cancelled
        path = self._paths[index]
        try:
            values = pixels(self._processor, read_image(path))
        except UnreadableImage as error:
            raise BadMaterial(f"Image {path.name}: {error}") from error
        size = values.numel() * values.element_size()
        if size <= self._room:
            self._room -= size
            self._kept[index] = values
        return values
