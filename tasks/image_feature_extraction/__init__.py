"""Image feature extraction: a vector for an image, so that similar images lie close together."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from assay.plugins import declare
from tasks.embeddings.mixed import MixedEmbeddingsRequest
from tasks.image_feature_extraction.endpoints import (
    FeaturesRequest,
    read_features,
    read_image_embeddings,
)
from tasks.image_feature_extraction.schema import Images, LabeledImage

# A gray square of 8 × 8 pixels, as PNG in base64.
SAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR4nGM8wQABTAwUMQA6AADYhMgK6QAAAABJ"
    "RU5ErkJggg=="
)


def evaluation_request(row: dict[str, Any]) -> tuple[Images, declare.NoOptions]:
    """Return the request for the vector of the row's image."""
    return Images(images=[row["image"]]), declare.NoOptions()


TASK = declare.Task(
    interface=1,
    name="image-feature-extraction",
    title="Image feature extraction",
    description="Turns an image into a vector, so that similar images lie close together.",
    modality="image",
    family=declare.Family.VISION,
    inputs=(declare.Modality.IMAGE,),
    outputs=(declare.Modality.VECTOR,),
    architectures=(
        "BeitModel",
        "ConvNextModel",
        "ConvNextV2Model",
        "DeiTModel",
        "Dinov2Model",
        "ResNetModel",
        "SwinModel",
        "Swinv2Model",
        "ViTModel",
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
    runner="tasks.image_feature_extraction.runner:ImageFeaturesRunner",
    unit=declare.Unit.IMAGES,
    input_schema=Images,
    option_schema=declare.NoOptions,
    result_type=list[float],
    endpoints=(
        declare.Endpoint(
            "/v1/embeddings",
            read_image_embeddings,
            takes_media=True,
            request=MixedEmbeddingsRequest,
            summary="OpenAI's shape, with images: a vector for each image.",
        ),
        declare.Endpoint(
            "/v1/tasks/image-feature-extraction",
            read_features,
            named=True,
            content_types=declare.content_types("image"),
            takes_media=True,
            request=FeaturesRequest,
            summary="Hugging Face's shape: send the image; the answer is `[vector]`.",
        ),
    ),
    sample={"input": [{"image": f"data:image/png;base64,{SAMPLE_IMAGE}"}]},
    playground=declare.Playground(body={"model": "$model", "input": {"image": "$file_url"}}),
    row=LabeledImage,
    row_input=itemgetter("image"),
    examples=(
        {"image": "0" * 64, "label": "shirt"},
        {"image": "1" * 64, "label": "sneaker"},
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.image_feature_extraction.score:score",
        metrics=(
            declare.Metric("nearest", "Nearest image has the same label", proportion=True),
            declare.Metric("map_10", "Mean average precision at 10"),
        ),
        primary_metric="nearest",
    ),
)
