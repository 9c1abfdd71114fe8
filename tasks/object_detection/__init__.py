"""Object detection: a box and a label for each object on an image."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from tasks.image_classification import SAMPLE_IMAGE
from tasks.object_detection.endpoints import ENDPOINT
from tasks.object_detection.schema import Detection, DetectionOptions, ImageWithBoxes


class TrainingHyperparameters(BaseModel):
    """Settings of training.

    `validation_fraction` of the images is held out. Gradients longer than `max_gradient` are
    shortened. `mirror` flips half of the images left to right: more variety, but wrong for writing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=20, ge=1, le=500)
    learning_rate: declare.LearningRate = 2e-4
    batch_size: int = Field(default=16, ge=1, le=256)
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    max_gradient: float = Field(default=1.0, gt=0, le=100)
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    mirror: bool = False
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


def evaluation_request(row: dict[str, Any]) -> tuple[declare.OneImage, DetectionOptions]:
    """Return the request that finds the objects of the row's image, including unlikely ones."""
    return declare.OneImage(image=row["image"]), DetectionOptions()


TASK = declare.Task(
    interface=1,
    name="object-detection",
    title="Object detection",
    description="Finds objects on an image: a box, a label and a score for each.",
    modality="image",
    family=declare.Family.VISION,
    inputs=(declare.Modality.IMAGE,),
    outputs=(declare.Modality.BOXES,),
    architectures=(
        "ConditionalDetrForObjectDetection",
        "DeformableDetrForObjectDetection",
        "DetrForObjectDetection",
        "RTDetrForObjectDetection",
        "RTDetrV2ForObjectDetection",
        "YolosForObjectDetection",
    ),
    engine=declare.BATCH,
    runner="tasks.object_detection.runner:ObjectDetectorRunner",
    unit=declare.Unit.IMAGES,
    input_schema=declare.OneImage,
    option_schema=DetectionOptions,
    result_type=list[Detection],
    endpoints=(ENDPOINT,),
    sample={"inputs": SAMPLE_IMAGE, "parameters": {"threshold": 0.3}},
    playground=declare.Playground(body=None, path="/v1/tasks/object-detection/{model}"),
    row=ImageWithBoxes,
    row_input=itemgetter("image"),
    examples=(
        {
            "image": "0" * 64,
            "objects": {
                "bbox": [[12.0, 8.0, 40.0, 52.0], [70.0, 30.0, 22.0, 20.0]],
                "categories": ["shirt", "bag"],
            },
        },
        {"image": "1" * 64, "objects": {"bbox": [], "categories": []}},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.object_detection.fine_tune:train",
            hyperparameters=TrainingHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.object_detection.score:score",
        metrics=(
            declare.Metric("map", "mAP"),
            declare.Metric("map_50", "mAP at IoU 0.5"),
            declare.Metric("map_75", "mAP at IoU 0.75"),
            declare.Metric("recall", "Average recall, 100 boxes"),
        ),
        primary_metric="map",
        uses_training_rows=True,
    ),
)
