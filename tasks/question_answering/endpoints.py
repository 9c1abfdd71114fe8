"""POST /v1/tasks/question-answering/{model}, in the shape of Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from assay.plugins import declare
from tasks.question_answering.schema import (
    MAX_CONTEXT,
    MAX_QUESTION,
    AnswerTokens,
    QuestionInputs,
    QuestionOptions,
    TopK,
)

# A long text is read in windows of about this many tokens, each with the question.
_WINDOW_TOKENS = 192


class AskedQuestion(declare.Strict):
    """A question and the text that answers it."""

    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION)]
    context: Annotated[str, Field(min_length=1, max_length=MAX_CONTEXT)]


class Parameters(declare.Strict):
    """Settings of the answers. Assay chooses the windows of a long text, so `doc_stride`,
    `max_seq_len` and `max_question_len` are not supported."""

    top_k: TopK | None = None
    max_answer_len: AnswerTokens | None = None
    handle_impossible_answer: bool | None = None
    align_to_words: bool | None = None
    doc_stride: None = None
    max_seq_len: None = None
    max_question_len: None = None


class QuestionRequest(declare.Strict):
    """One question."""

    inputs: AskedQuestion
    parameters: Parameters | None = None


def read_question(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = declare.parse(QuestionRequest, body.data)
    pair = request.inputs
    supported = set(QuestionOptions.model_fields)
    settings = (
        request.parameters.model_dump(exclude_none=True, include=supported)
        if request.parameters
        else {}
    )
    options = QuestionOptions(**settings)
    context, question = (
        declare.estimate_tokens([pair.context]),
        declare.estimate_tokens([pair.question]),
    )
    tokens = 2 * context + (question + 4) * (1 + context // _WINDOW_TOKENS)
    return declare.Plan(
        model=name,
        inputs=QuestionInputs(question=pair.question, context=pair.context),
        options=options,
        renderer=AnswerRenderer(several=options.top_k > 1),
        tokens=tokens,
        prompt_tokens=tokens,
    )


@dataclass(slots=True)
class AnswerRenderer:
    """The best answer, or a list of answers if `top_k` is over 1."""

    several: bool

    def whole(self, answer: declare.Answer) -> dict[str, Any] | list[Any]:
        answers: list[Any] = answer.results[0]
        best: dict[str, Any] = answers[0]
        return answers if self.several else best
