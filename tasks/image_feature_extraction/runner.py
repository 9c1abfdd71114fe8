"""Serve an image encoder: one vector of unit length for each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import declare, run
from assay.plugins.run import Item
from tasks.image_feature_extraction.schema import Images

# Architectures whose first position represents the image; their pooler is often untrained.
CLASS_TOKEN = frozenset({"BeitModel", "DeiTModel", "Dinov2Model", "ViTModel"})


class ImageFeaturesRunner(run.BaseRunner):
    """Returns the class token of transformers that have one, else the pooled output; for
    classifiers of timm, the input of the last layer."""

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
        architecture = run.architecture_of(folder, architectures)
        self._by_token = architecture in CLASS_TOKEN
        self._is_timm = architecture.startswith(run.TIMM)
        self._model = run.load_model(folder, architectures, dtype=dtype, device=device)

    def prepare(self, request_id: str, inputs: Images, options: declare.NoOptions) -> run.Prepared:
        try:
            arrays = [run.pixels(self._processor, run.read_image(each)) for each in inputs.images]
        except run.UnreadableImage as error:
            raise run.RequestRefused(str(error)) from error
        items = [
            Item(each, size=each.shape[1] * each.shape[2], bucket=tuple(each.shape))
            for each in arrays
        ]
        return run.Prepared(items=items, units=len(items))

    def collate(self, items: Sequence[Item]) -> Tensor:
        batch = torch.stack([item.payload for item in items])
        return batch.to(self._model.device, self._model.dtype)

    def run(self, batch: Tensor) -> Tensor:
        if self._is_timm:
            body = self._model.timm_model
            vectors = body.forward_head(body.forward_features(batch), pre_logits=True)
        else:
            output = self._model(pixel_values=batch)
            vectors = output.last_hidden_state[:, 0] if self._by_token else output.pooler_output
        return torch.nn.functional.normalize(vectors.flatten(start_dim=1).float(), dim=-1)

    def split(self, output: Tensor, items: Sequence[Item]) -> list[Any]:
        vectors: list[Any] = output.cpu().tolist()
        return vectors
