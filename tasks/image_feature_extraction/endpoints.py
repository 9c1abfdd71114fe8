"""/v1/embeddings of images, and POST /v1/tasks/image-feature-extraction/{model} in Hugging Face's
inference shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from assay.plugins import declare
from tasks.embeddings.mixed import MixedEmbeddingsRequest
from tasks.image_feature_extraction.schema import Images


class FeaturesRequest(declare.MediaRequest):
    """An image in base64."""

    normalize: None = None
    truncate: None = None


def read_image_embeddings(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read images to embed. Raises RequestInvalid."""
    request = declare.parse(MixedEmbeddingsRequest, body.data)
    images = []
    for number, each in enumerate(request.read()):
        if not isinstance(each, declare.MediaInput):
            raise declare.RequestInvalid(
                f"Input {number} is a text; this model reads only images: "
                '{"image": "data:image/png;base64,…"}.',
                param="input",
                code="unsupported_value",
            )
        images.append(each)
    return declare.Plan(
        model=request.model,
        user=request.user or "",
        inputs=Images(images=images),
        renderer=request.renderer(list(range(len(images)))),
        tokens=0,
        prompt_tokens=0,
        units=len(images),
    )


def read_features(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read one image, raw or as JSON. Raises RequestInvalid."""
    image, _ = declare.read_file(body, "image", FeaturesRequest)
    return declare.Plan(
        model=name,
        inputs=Images(images=[image]),
        renderer=FeaturesRenderer(),
        tokens=0,
        prompt_tokens=0,
        units=1,
    )


@dataclass(slots=True)
class FeaturesRenderer:
    """[vector], for `InferenceClient.feature_extraction`."""

    def whole(self, answer: declare.Answer) -> list[Any]:
        return list(answer.results)
