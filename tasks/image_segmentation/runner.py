"""Serve a segmenter: give each pixel one label, and return a mask for each label."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from assay.plugins import declare, run
from assay.plugins.run import Item
from tasks.image_segmentation.schema import Segment, SegmentationOptions

# Each label's mask is as large as the image, so images and labels are bounded.
MAX_PIXELS = 12_000_000
MAX_SEGMENTS = 32
# Scores are computed in at most this many pixels a side, and labels are scaled up from there.
MAX_SIDE = 512


class SegmenterRunner(run.BaseRunner):
    """Returns one [{label, score, mask}, …].

    Images that have the same size after processing share a batch.
    """

    # 8 images of 512 × 512 pixels.
    limits = run.BatchLimits(items=16, size=8 * 512 * 512)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._processor = run.load_image_processor(folder, whole=True)
        self._model = run.load_model(folder, architectures, dtype=dtype, device=device)
        self._labels = run.label_names(self._model)

    def prepare(
        self, request_id: str, inputs: declare.OneImage, options: SegmentationOptions
    ) -> run.Prepared:
        try:
            image = run.read_image(inputs.image)
        except run.UnreadableImage as error:
            raise run.RequestRefused(str(error)) from error
        if image.width * image.height > MAX_PIXELS:
            raise run.RequestRefused(
                f"The image has {image.width:,} × {image.height:,} pixels; masks are made of at "
                f"most {MAX_PIXELS:,}. Scale it down."
            )
        values = run.pixels(self._processor, image)
        _, height, width = values.shape
        payload = (values, (image.height, image.width), options.threshold)
        item = Item(payload, size=height * width, bucket=tuple(values.shape))
        return run.Prepared(items=[item], units=1)

    def collate(self, items: Sequence[Item]) -> Tensor:
        batch = torch.stack([item.payload[0] for item in items])
        return batch.to(self._model.device, self._model.dtype)

    def run(self, batch: Tensor) -> Tensor:
        output = self._model(pixel_values=batch)
        logits: Tensor = output.logits if hasattr(output, "logits") else _logits_of_queries(output)
        return logits

    def split(self, output: Tensor, items: Sequence[Item]) -> list[list[Segment]]:
        return [
            segments(logits, self._labels, size=item.payload[1], threshold=item.payload[2])
            for logits, item in zip(output.float(), items, strict=True)
        ]


def _logits_of_queries(output: Any) -> Tensor:
    """Return the logarithm of each label's share of each pixel, for models that return masks with a
    label each; the last label means no label."""
    labels = output.class_queries_logits.softmax(-1)[..., :-1]
    masks = output.masks_queries_logits.sigmoid()
    shares = torch.einsum("bqc,bqhw->bchw", labels, masks)
    return shares.clamp(min=1e-6).log()


def segments(
    logits: Tensor, labels: Sequence[str], *, size: tuple[int, int], threshold: float
) -> list[Segment]:
    """Return the masks of the labels on an image of `size` (height, width), the largest first.

    `logits` are [labels, height, width], usually of a smaller image.
    """
    scale = min(1.0, MAX_SIDE / max(size))
    inner = tuple(max(1, round(side * scale)) for side in size)
    shares = torch.nn.functional.interpolate(
        logits[None], size=inner, mode="bilinear", align_corners=False
    )[0].softmax(0)
    score, best = shares.max(0)
    label_map = np.asarray(
        Image.fromarray(
            best.to(torch.uint8 if len(labels) <= 256 else torch.int32).cpu().numpy()
        ).resize((size[1], size[0]), Image.Resampling.NEAREST)
    )
    result: list[Segment] = []
    counts = torch.bincount(best.reshape(-1), minlength=len(labels))
    for index in counts.argsort(descending=True, stable=True)[:MAX_SEGMENTS].tolist():
        if not counts[index]:
            break
        mean = float(score[best == index].mean())
        if mean >= threshold:
            result.append(
                {"label": labels[index], "score": mean, "mask": _as_png(label_map == index)}
            )
    return result


def _as_png(mask: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode("ascii")
