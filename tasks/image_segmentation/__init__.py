"""Image segmentation: one label for each pixel of an image."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from tasks.image_classification import SAMPLE_IMAGE
from tasks.image_segmentation.endpoints import ENDPOINT
from tasks.image_segmentation.schema import ImageWithMask, Segment, SegmentationOptions

# Models that score each label for each pixel; the recipe trains these.
TRAINED = (
    "BeitForSemanticSegmentation",
    "MobileNetV2ForSemanticSegmentation",
    "SegformerForSemanticSegmentation",
)


class TrainingHyperparameters(BaseModel):
    """Settings of training.

    `validation_fraction` of the images is held out. `mirror` flips half of the images left to
    right: more variety, but wrong for writing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=10, ge=1, le=500)
    learning_rate: declare.LearningRate = 1e-3
    batch_size: int = Field(default=16, ge=1, le=256)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    mirror: bool = False
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


def evaluation_request(row: dict[str, Any]) -> tuple[declare.OneImage, SegmentationOptions]:
    """Return the request that segments the row's image."""
    return declare.OneImage(image=row["image"]), SegmentationOptions()


TASK = declare.Task(
    interface=1,
    name="image-segmentation",
    title="Image segmentation",
    description="Labels each pixel of an image, and returns a mask for each label.",
    modality="image",
    family=declare.Family.VISION,
    inputs=(declare.Modality.IMAGE,),
    outputs=(declare.Modality.MASKS,),
    architectures=(*TRAINED, "MaskFormerForInstanceSegmentation"),
    engine=declare.BATCH,
    runner="tasks.image_segmentation.runner:SegmenterRunner",
    unit=declare.Unit.IMAGES,
    input_schema=declare.OneImage,
    option_schema=SegmentationOptions,
    result_type=list[Segment],
    endpoints=(ENDPOINT,),
    sample={"inputs": SAMPLE_IMAGE},
    playground=declare.Playground(body=None, path="/v1/tasks/image-segmentation/{model}"),
    row=ImageWithMask,
    row_input=itemgetter("image"),
    examples=(
        {"image": "0" * 64, "mask": "2" * 64, "categories": ["background", "shirt", "bag"]},
        {"image": "1" * 64, "mask": "3" * 64, "categories": ["background", "shirt", "bag"]},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.image_segmentation.fine_tune:train",
            hyperparameters=TrainingHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.image_segmentation.score:score",
        metrics=(
            declare.Metric("mean_iou", "Mean IoU"),
            declare.Metric("pixel_accuracy", "Pixel accuracy"),
        ),
        primary_metric="mean_iou",
        uses_training_rows=True,
    ),
)
