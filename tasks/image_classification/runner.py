"""Serve an image classifier: the score of every label, best first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import declare, run
from assay.plugins.run import Item


class ImageClassifierRunner(run.LabelAdapters, run.BaseRunner):
    """Returns one [{label, score}, …] for the image.

    Images that the processor makes equally large share a batch.
    """

    # 32 images of 224 × 224 pixels.
    limits = run.BatchLimits(items=32, size=32 * 224 * 224)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._processor = run.load_image_processor(folder)
        self.model = run.load_model(folder, architectures, dtype=dtype, device=device)
        self.architectures = architectures
        self.labels = run.label_names(self.model)

    def prepare(
        self, request_id: str, inputs: declare.OneImage, options: declare.LabelOptions
    ) -> run.Prepared:
        try:
            values = run.pixels(self._processor, run.read_image(inputs.image))
        except run.UnreadableImage as error:
            raise run.RequestRefused(str(error)) from error
        _, height, width = values.shape
        item = Item((values, options.top_k), size=height * width, bucket=tuple(values.shape))
        return run.Prepared(items=[item], units=1)

    def collate(self, items: Sequence[Item]) -> Tensor:
        batch = torch.stack([item.payload[0] for item in items])
        return batch.to(self.model.device, self.model.dtype)

    def run(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=batch).logits
        return logits

    def split(self, output: Tensor, items: Sequence[Item]) -> list[Any]:
        ranked = run.ranked_labels(output, self.labels)
        return [labels[: item.payload[1]] for labels, item in zip(ranked, items, strict=True)]
