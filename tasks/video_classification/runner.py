"""Serve a video classifier: the score of every label, best first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import declare, run
from assay.plugins.run import Item

MAX_FRAMES = 64


class VideoClassifierRunner(run.BaseRunner):
    """Returns one [{label, score}, …] for the video, from as many frames as the model takes."""

    # 4 videos of 16 frames of 224 × 224 pixels.
    limits = run.BatchLimits(items=32, size=4 * 16 * 224 * 224)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._processor = run.load_video_processor(folder)
        self._model = run.load_model(folder, architectures, dtype=dtype, device=device)
        self._labels = run.label_names(self._model)
        self._frames = frames_of(self._model)

    def prepare(
        self, request_id: str, inputs: declare.OneVideo, options: declare.LabelOptions
    ) -> run.Prepared:
        try:
            clip = run.read_clip(inputs.video, self._frames)
        except run.VideosBusy as error:
            raise run.RequestRefused(str(error), code="engine_overloaded", status=429) from error
        except run.UnreadableVideo as error:
            raise run.RequestRefused(str(error)) from error
        values = run.frame_values(self._processor, clip.frames)
        count, _, height, width = values.shape
        item = Item(
            (values, options.top_k), size=count * height * width, bucket=tuple(values.shape)
        )
        return run.Prepared(items=[item], units=clip.megapixels)

    def collate(self, items: Sequence[Item]) -> Tensor:
        batch = torch.stack([item.payload[0] for item in items])
        return batch.to(self._model.device, self._model.dtype)

    def run(self, batch: Tensor) -> Tensor:
        logits: Tensor = self._model(pixel_values=batch).logits
        return logits

    def split(self, output: Tensor, items: Sequence[Item]) -> list[Any]:
        ranked = run.ranked_labels(output, self._labels)
        return [labels[: item.payload[1]] for labels, item in zip(ranked, items, strict=True)]


def frames_of(model: Any) -> int:
    """Return the number of frames that the model takes. Raises UnsupportedModel."""
    frames = int(model.config.num_frames)
    if not 2 <= frames <= MAX_FRAMES:
        raise run.UnsupportedModel(
            f"The model takes {frames} frames; 2 to {MAX_FRAMES} are supported."
        )
    return frames
