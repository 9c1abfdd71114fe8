"""Serve an image classifier: the score of every label, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workers.engines.images import UnreadableImage, load_image_processor, pixels, read_image
from workers.engines.loading import load_model
from workers.engines.protocol import RequestRefused
from workers.engines.runner import BatchLimits, Item, Prepared, one_media
from workers.engines.text_runner import label_names, ranked_labels


class ImageClassifierRunner:
    """Reads {"image": file} and the option `top_k`; returns one [{label, score}, …].

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

    def prepare(
        self, request_id: str, inputs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Prepared:
        image = one_media(inputs, "image")
        try:
            values = pixels(self._processor, read_image(image))
        except UnreadableImage as error:
            raise RequestRefused(str(error)) from error
        _, height, width = values.shape
        item = Item((values, _top_k(options)), size=height * width, bucket=tuple(values.shape))
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


def _top_k(options: Mapping[str, Any]) -> int | None:
    """Return how many labels to answer with; None for all. Raises RequestRefused."""
    if unknown := sorted(name for name, value in options.items() if value and name != "top_k"):
        raise RequestRefused(f"This model does not take {', '.join(unknown)}.")
    top_k = options.get("top_k")
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise RequestRefused("top_k must be a whole number of at least 1.")
    return top_k
