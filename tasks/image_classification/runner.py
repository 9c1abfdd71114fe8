"""Serve an image classifier: the score of every label, best first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.image_classification.schema import LabelOptions, OneImage
from workers.engines.images import UnreadableImage, load_image_processor, pixels, read_image
from workers.engines.loading import load_model
from workers.engines.protocol import RequestRefused
from workers.engines.runner import BatchLimits, Item, Prepared
from workers.engines.text_runner import label_names, ranked_labels


class ImageClassifierRunner:
    """Returns one [{label, score}, …] for the image.

    Images that the processor makes equally large share a batch.
    """

    # 32 images of 224 × 224 pixels.
    limits = BatchLimits(items=32, size=32 * 224 * 224)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._processor = load_image_processor(folder)
        self._model = load_model(folder, architectures, dtype=dtype, device=device)
        self._labels = label_names(self._model)

    def prepare(self, request_id: str, inputs: OneImage, options: LabelOptions) -> Prepared:
        try:
            values = pixels(self._processor, read_image(inputs.image))
        except UnreadableImage as error:
            raise RequestRefused(str(error)) from error
        _, height, width = values.shape
        item = Item((values, options.top_k), size=height * width, bucket=tuple(values.shape))
        return Prepared(items=[item], units=1)

    def collate(self, items: Sequence[Item]) -> Tensor:
        batch = torch.stack([item.payload[0] for item in items])
        return batch.to(self._model.device, self._model.dtype)

    def run(self, batch: Tensor) -> Tensor:
        logits: Tensor = self._model(pixel_values=batch).logits
        return logits

    def split(self, output: Tensor, items: Sequence[Item]) -> list[Any]:
        ranked = ranked_labels(output, self._labels)
        return [labels[: item.payload[1]] for labels, item in zip(ranked, items, strict=True)]

    def cancel(self, request_id: str) -> None:
        """Do nothing: preparing an image takes milliseconds."""

    def close(self) -> None:
        """Do nothing: the runner holds the model alone."""
