"""Zero-shot image classification, with labels from each request; and vectors of images and texts
in one space."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from assay.plugins import declare
from tasks.embeddings.mixed import MixedEmbeddingsRequest
from tasks.zero_shot_image_classification.endpoints import (
    ZeroShotRequest,
    read_mixed_embeddings,
    read_zero_shot,
)
from tasks.zero_shot_image_classification.schema import (
    CaptionedImage,
    ContrastiveHyperparameters,
    ImagesAndTexts,
    RankingOptions,
)

# A red shirt on black, 32 × 32 pixels, as PNG in base64.
SAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQMAAABJtOi3AAAABlBMVEXhLS0AAAATdu2+AAAATUlEQVR42pXOsRFE"
    "UAAG4c8/DNkpQSfXgo60phQlCAU37wlERyTZbHe2qYgb1kr9HIvCN4XNTp+dXzZKJpKR9jIGhnTMCdOj9wLN/9AJ"
    "060PFOZlfusAAAAASUVORK5CYII="
)
SAMPLE_LABELS = ("a red shirt", "a blue sneaker", "a green bag")


def evaluation_request(row: dict[str, Any]) -> tuple[ImagesAndTexts, RankingOptions]:
    """Return the request for the vectors of the row's image and caption."""
    return ImagesAndTexts(images=[row["image"]], texts=[row["text"]]), RankingOptions()


TASK = declare.Task(
    interface=1,
    name="zero-shot-image-classification",
    title="Zero-shot image classification",
    description=(
        "Assigns an image labels that come with the request, and turns images and texts into "
        "comparable vectors."
    ),
    modality="image",
    family=declare.Family.MULTIMODAL,
    inputs=(declare.Modality.IMAGE, declare.Modality.TEXT),
    outputs=(declare.Modality.LABEL,),
    architectures=("CLIPModel", "SiglipModel"),
    engine=declare.BATCH,
    runner="tasks.zero_shot_image_classification.runner:ImageTextRunner",
    unit=declare.Unit.IMAGES,
    input_schema=ImagesAndTexts,
    option_schema=RankingOptions,
    result_type=list[declare.Label] | list[float],
    endpoints=(
        declare.Endpoint(
            "/v1/tasks/zero-shot-image-classification",
            read_zero_shot,
            named=True,
            content_types=declare.content_types("image"),
            takes_media=True,
            request=ZeroShotRequest,
            summary="Hugging Face's shape: an image and labels in, `[{label, score}]` out.",
        ),
        declare.Endpoint(
            "/v1/embeddings",
            read_mixed_embeddings,
            takes_media=True,
            request=MixedEmbeddingsRequest,
            summary="OpenAI's shape, with images: a vector for each text and each image.",
        ),
    ),
    sample={"inputs": SAMPLE_IMAGE, "parameters": {"candidate_labels": list(SAMPLE_LABELS)}},
    playground=declare.Playground(
        body={"inputs": "$file", "parameters": {"candidate_labels": "$lines"}},
        path="/v1/tasks/zero-shot-image-classification/{model}",
        lines=SAMPLE_LABELS,
        lines_label="Labels to choose from",
    ),
    row=CaptionedImage,
    row_input=itemgetter("image"),
    examples=(
        {"image": "0" * 64, "text": "a photo of a red shirt"},
        {"image": "1" * 64, "text": "a photo of a blue sneaker"},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.zero_shot_image_classification.contrastive:train",
            hyperparameters=ContrastiveHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.zero_shot_image_classification.score:score",
        metrics=(
            declare.Metric("accuracy", "Zero-shot accuracy", proportion=True),
            declare.Metric("recall_10", "Recall@10 of images by text"),
        ),
        primary_metric="accuracy",
        uses_training_rows=True,
    ),
)
