"""Serve an object detector: a label, a score and a box for each object, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import declare, run
from assay.plugins.run import Item
from tasks.object_detection.schema import Detection, DetectionOptions

# DETR's own processors make the longer side at most 1,333 pixels.
MAX_SIDE = 1_344
# The number that COCO's measure uses.
MAX_OBJECTS = 100


class ObjectDetectorRunner(run.BaseRunner):
    """Returns one [{label, score, box}, …].

    Only images that have the same size after processing share a batch, so no image is padded.
    """

    # 8 images of 800 × 1,333 pixels.
    limits = run.BatchLimits(items=32, size=8 * 800 * 1_333)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._processor = run.load_image_processor(folder, max_side=MAX_SIDE, whole=True)
        self._model = run.load_model(folder, architectures, dtype=dtype, device=device)
        self._labels = run.label_names(self._model)

    def prepare(
        self, request_id: str, inputs: declare.OneImage, options: DetectionOptions
    ) -> run.Prepared:
        try:
            image = run.read_image(inputs.image)
        except run.UnreadableImage as error:
            raise run.RequestRefused(str(error)) from error
        values = run.pixels(self._processor, image)
        _, height, width = values.shape
        payload = (values, (image.height, image.width), options.threshold)
        item = Item(payload, size=height * width, bucket=tuple(values.shape))
        return run.Prepared(items=[item], units=1)

    def collate(self, items: Sequence[Item]) -> Tensor:
        batch = torch.stack([item.payload[0] for item in items])
        return batch.to(self._model.device, self._model.dtype)

    def run(self, batch: Tensor) -> Any:
        return self._model(pixel_values=batch)

    def split(self, output: Any, items: Sequence[Item]) -> list[list[Detection]]:
        output.logits, output.pred_boxes = output.logits.float(), output.pred_boxes.float()
        detected = self._processor.post_process_object_detection(
            output, threshold=0.0, target_sizes=[item.payload[1] for item in items]
        )
        return [
            detections(each, self._labels, size=item.payload[1], threshold=item.payload[2])
            for each, item in zip(detected, items, strict=True)
        ]


def detections(
    output: Mapping[str, Tensor],
    labels: Sequence[str],
    *,
    size: tuple[int, int],
    threshold: float,
) -> list[Detection]:
    """Return a processor's detections on an image of `size` (height, width), best first, with boxes
    cut off at the edges."""
    height, width = size
    boxes = output["boxes"].clamp(
        torch.zeros(4), torch.tensor([width, height, width, height], dtype=torch.float32)
    )
    best = output["scores"].argsort(descending=True, stable=True)[:MAX_OBJECTS]
    return [
        {
            "label": labels[int(output["labels"][index])],
            "score": float(output["scores"][index]),
            "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), boxes[index].tolist(), strict=True)),  # type: ignore[typeddict-item]
        }
        for index in best.tolist()
        if float(output["scores"][index]) >= threshold
    ]
