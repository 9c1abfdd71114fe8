"""POST /v1/tasks/zero-shot-image-classification/{model} in Hugging Face's inference shape, and
/v1/embeddings of texts and images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from assay.plugins import declare
from tasks.embeddings.mixed import MixedEmbeddingsRequest, images_first
from tasks.zero_shot_image_classification.schema import (
    MAX_LABELS,
    ImagesAndTexts,
    Label,
    RankingOptions,
)

# The default of Hugging Face's pipeline.
DEFAULT_TEMPLATE = "This is a photo of {}."


class Parameters(declare.Strict):
    """`hypothesis_template` is the sentence around each label, with `{}` for the label."""

    candidate_labels: Annotated[list[Label], Field(min_length=2, max_length=MAX_LABELS)]
    hypothesis_template: Annotated[str, Field(min_length=2, max_length=1_000)] | None = None


class ZeroShotRequest(declare.MediaRequest):
    """An image in base64, and the labels to choose from."""

    parameters: Parameters


def read_zero_shot(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read an image and its candidate labels. Raises RequestInvalid."""
    image, request = declare.read_file(body, "image", ZeroShotRequest)
    if request is None:
        raise declare.RequestInvalid(
            "Send JSON with the image in base64 as inputs, and parameters with candidate_labels.",
            param="parameters.candidate_labels",
            code="missing_parameter",
        )
    settings = request.parameters
    template = settings.hypothesis_template or DEFAULT_TEMPLATE
    if template.count("{}") != 1:
        raise declare.RequestInvalid(
            "hypothesis_template must contain {} once, for the label.",
            param="parameters.hypothesis_template",
        )
    if len(set(settings.candidate_labels)) < len(settings.candidate_labels):
        raise declare.RequestInvalid(
            "candidate_labels names a label twice.", param="parameters.candidate_labels"
        )
    return declare.Plan(
        model=name,
        inputs=ImagesAndTexts(
            images=[image],
            texts=[template.replace("{}", each) for each in settings.candidate_labels],
        ),
        options=RankingOptions(labels=settings.candidate_labels),
        renderer=RankedLabels(),
        tokens=0,
        prompt_tokens=0,
        units=1,
    )


def read_mixed_embeddings(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read texts and images to embed. Raises RequestInvalid."""
    request = declare.parse(MixedEmbeddingsRequest, body.data)
    inputs = request.read()
    return declare.Plan(
        model=request.model,
        user=request.user or "",
        inputs=ImagesAndTexts(
            images=[each for each in inputs if isinstance(each, declare.MediaInput)],
            texts=[each for each in inputs if isinstance(each, str)],
        ),
        options=RankingOptions(),
        renderer=request.renderer(images_first(inputs)),
        tokens=0,
        prompt_tokens=0,
        units=len(inputs),
    )


@dataclass(slots=True)
class RankedLabels:
    """[{label, score}, …], best first."""

    def whole(self, answer: declare.Answer) -> list[Any]:
        return list(answer.results[0])
