"""POST /v1/tasks/question-answering/{model}, in the shape of Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from registry.catalog.endpoints import Answer, Plan
from registry.catalog.requests import Body, Strict, estimate_tokens, parse
from tasks.question_answering.schema import (
    MAX_CONTEXT,
    MAX_QUESTION,
    AnswerTokens,
    QuestionInputs,
    QuestionOptions,
    TopK,
)

# A long text is read in windows, each with the question, of about so many tokens of the text.
_WINDOW_TOKENS = 192


class AskedQuestion(Strict):
    """A question and the text that answers it."""

    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION)]
    context: Annotated[str, Field(min_length=1, max_length=MAX_CONTEXT)]


class Parameters(Strict):
    """Settings of the answers. How a long text is cut is chosen here, so that `doc_stride`,
    `max_seq_len` and `max_question_len` are not taken."""

    top_k: TopK | None = None
    max_answer_len: AnswerTokens | None = None
    handle_impossible_answer: bool | None = None
    align_to_words: bool | None = None
    doc_stride: None = None
    max_seq_len: None = None
    max_question_len: None = None


class QuestionRequest(Strict):
    """One question."""

    inputs: AskedQuestion
    parameters: Parameters | None = None


def read_question(body: Body, request_id: str, name: str) -> Plan:
    """Read the request; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = parse(QuestionRequest, body.data)
    asked = request.inputs
    taken = set(QuestionOptions.model_fields)
    given = (
        request.parameters.model_dump(exclude_none=True, include=taken)
        if request.parameters
        else {}
    )
    options = QuestionOptions(**given)
    context, question = estimate_tokens([asked.context]), estimate_tokens([asked.question])
    tokens = 2 * context + (question + 4) * (1 + context // _WINDOW_TOKENS)
    return Plan(
        model=name,
        inputs=QuestionInputs(question=asked.question, context=asked.context),
        options=options,
        renderer=AnswerRenderer(several=options.top_k > 1),
        tokens=tokens,
        prompt_tokens=tokens,
    )


@dataclass(slots=True)
class AnswerRenderer:
    """The best answer, or a list of them where `top_k` is over 1."""

    several: bool

    def whole(self, answer: Answer) -> dict[str, Any] | list[Any]:
        found: list[Any] = answer.results[0]
        best: dict[str, Any] = found[0]
        return found if self.several else best
