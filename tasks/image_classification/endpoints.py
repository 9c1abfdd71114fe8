"""POST /v1/tasks/image-classification/{model}, in Hugging Face's inference shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.plugins import declare
from tasks.image_classification.schema import LabelOptions, OneImage

DEFAULT_TOP_K = 5


class Parameters(declare.Strict):
    """`top_k` is the number of labels to return; scores are always a softmax over all labels."""

    top_k: Annotated[int, Field(ge=1, le=1_000)] | None = None
    function_to_apply: Literal["softmax"] | None = None


class ImageClassificationRequest(declare.MediaRequest):
    """An image in base64."""

    parameters: Parameters | None = None


def read_image_classification(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read an image, raw or as JSON. Raises RequestInvalid."""
    image, request = declare.read_file(body, "image", ImageClassificationRequest)
    parameters = (request and request.parameters) or Parameters()
    return declare.Plan(
        model=name,
        inputs=OneImage(image=image),
        renderer=LabelsRenderer(),
        tokens=0,
        prompt_tokens=0,
        units=1,
        options=LabelOptions(top_k=parameters.top_k or DEFAULT_TOP_K),
    )


@dataclass(slots=True)
class LabelsRenderer:
    """[{label, score}, …], best first."""

    def whole(self, answer: declare.Answer) -> list[Any]:
        return list(answer.results[0])
