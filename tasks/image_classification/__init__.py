"""Image classification: one label out of a fixed set for an image."""

from __future__ import annotations

from operator import itemgetter

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

# A gray shirt on black, 32 × 32 pixels, as PNG in base64.
SAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQMAAABJtOi3AAAABlBMVEXIyMgAAAAyQEDlAAAATUlEQVR42pXOsRFE"
    "UAAG4c8/DNkpQSfXgo60phQlCAU37wlERyTZbHe2qYgb1kr9HIvCN4XNTp+dXzZKJpKR9jIGhnTMCdOj9wLN/9AJ"
    "060PFOZlfusAAAAASUVORK5CYII="
)


class LabeledImage(BaseModel):
    """One image and its label."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: declare.ImageFile
    label: str = Field(min_length=1, max_length=100)


class TrainingHyperparameters(declare.ClassifierSettings):
    """Settings of training. The new head learns `head_factor` times as fast as the other weights.

    `mirror` flips half of the images left to right: more variety, but wrong for writing.
    """

    learning_rate: declare.LearningRate = 1e-3
    batch_size: int = Field(default=32, ge=1, le=512)
    head_factor: float = Field(default=1.0, ge=0.1, le=100)
    mirror: bool = False


class LoraHyperparameters(declare.LoraSettings, TrainingHyperparameters):
    """Settings of training an adapter. The head learns `head_factor` times as fast as LoRA."""


TASK = declare.Task(
    interface=1,
    name="image-classification",
    title="Image classification",
    description="Assigns an image one of the labels in its training data.",
    modality="image",
    family=declare.Family.VISION,
    inputs=(declare.Modality.IMAGE,),
    outputs=(declare.Modality.LABEL,),
    architectures=(
        "BeitForImageClassification",
        "BitForImageClassification",
        "ConvNextForImageClassification",
        "ConvNextV2ForImageClassification",
        "DeiTForImageClassification",
        "Dinov2ForImageClassification",
        "EfficientNetForImageClassification",
        "MobileNetV1ForImageClassification",
        "MobileNetV2ForImageClassification",
        "RegNetForImageClassification",
        "ResNetForImageClassification",
        "SwinForImageClassification",
        "Swinv2ForImageClassification",
        "ViTForImageClassification",
        "timm.convnext_atto",
        "timm.efficientnet_b0",
        "timm.efficientnet_lite0",
        "timm.mobilenetv3_small_100",
        "timm.regnety_002",
        "timm.resnet18",
        "timm.resnet50",
        "timm.vit_tiny_patch16_224",
    ),
    engine=declare.BATCH,
    runner="tasks.image_classification.runner:ImageClassifierRunner",
    unit=declare.Unit.IMAGES,
    input_schema=declare.OneImage,
    option_schema=declare.LabelOptions,
    result_type=list[declare.Label],
    endpoints=(
        declare.label_endpoint("image-classification", "image", declare.OneImage, noun="image"),
    ),
    sample={"inputs": SAMPLE_IMAGE, "parameters": {"top_k": 3}},
    playground=declare.Playground(body=None, path="/v1/tasks/image-classification/{model}"),
    row=LabeledImage,
    row_input=itemgetter("image"),
    examples=(
        {"image": "0" * 64, "label": "Shirt"},
        {"image": "1" * 64, "label": "Sneaker"},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.image_classification.fine_tune:train",
            hyperparameters=TrainingHyperparameters,
        ),
        declare.Recipe(
            method="lora",
            title="LoRA",
            makes="adapter",
            train="tasks.image_classification.fine_tune:train",
            hyperparameters=LoraHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=declare.label_requests("image", declare.OneImage),
        score="tasks.image_classification.score:score",
        metrics=(
            declare.Metric("accuracy", "Accuracy", proportion=True),
            declare.Metric("macro_f1", "Macro-F1"),
        ),
        primary_metric="macro_f1",
        uses_training_rows=True,
    ),
)
