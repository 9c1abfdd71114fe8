"""POST /v1/tasks/visual-question-answering/{model}, as Hugging Face's client sends it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.plugins import declare
from tasks.image_text_to_text.endpoints import IMAGE_TOKENS
from tasks.image_text_to_text.schema import ANSWER_TOKENS, question_inputs

Image = Annotated[str, Field(min_length=1)]


class Parameters(declare.Strict):
    """Settings of the request; the model returns one answer."""

    top_k: Literal[1] | None = None


class VisualQuestionRequest(declare.Strict):
    """A question about an image in base64. The client sends the image as `inputs`, too."""

    inputs: Image
    question: declare.Text
    image: Image | None = None
    parameters: Parameters | None = None


def read_visual_question(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = declare.parse(VisualQuestionRequest, body.data)
    if request.image not in (None, request.inputs):
        raise declare.RequestInvalid("image and inputs differ; send one image.", param="image")
    image = declare.read_image_text(request.inputs, "inputs")
    prompt_tokens = declare.estimate_tokens([request.question]) + IMAGE_TOKENS
    return declare.Plan(
        model=name,
        inputs=question_inputs(request.question, image),
        options=declare.SamplingOptions(max_tokens=ANSWER_TOKENS, temperature=0.0, logprobs=0),
        renderer=AnswerRenderer(),
        tokens=prompt_tokens + ANSWER_TOKENS,
        prompt_tokens=prompt_tokens,
    )


@dataclass(slots=True)
class AnswerRenderer:
    """[{answer, score}] with one answer; the score is its probability."""

    def whole(self, answer: declare.Answer) -> list[dict[str, Any]]:
        scores = answer.choices[0].scores if answer.choices else []
        nats = sum(log or 0.0 for _, log, _ in scores)
        return [{"answer": answer.text.strip(), "score": math.exp(min(nats, 0.0))}]
