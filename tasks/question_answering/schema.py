"""Rows, inputs, options and results of question answering. Loads neither torch nor Django."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from assay.plugins import declare

MAX_QUESTION = 10_000
MAX_CONTEXT = 100_000
MAX_ANSWER_TOKENS = 200

TopK = Annotated[int, Field(ge=1, le=100)]
AnswerTokens = Annotated[int, Field(ge=1, le=MAX_ANSWER_TOKENS)]


class AnsweredQuestion(BaseModel):
    """A question, a text, and the passages that answer it; an empty list without an answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: str = Field(min_length=1, max_length=MAX_QUESTION)
    context: str = Field(min_length=1, max_length=MAX_CONTEXT)
    answers: declare.ContextPassages

    @model_validator(mode="after")
    def _check_answers(self) -> AnsweredQuestion:
        declare.check_passages(self.context, self.answers, overlap=True)
        return self


class QuestionInputs(declare.Inputs):
    """A question and the text that answers it."""

    question: str = Field(min_length=1, max_length=MAX_QUESTION)
    context: str = Field(min_length=1, max_length=MAX_CONTEXT)


class QuestionOptions(declare.Options):
    """The model returns `top_k` answers of at most `max_answer_len` tokens each, aligned to words.
    With `handle_impossible_answer`, an empty answer means that the text has no answer."""

    top_k: TopK = 1
    max_answer_len: AnswerTokens = 30
    handle_impossible_answer: bool = False
    align_to_words: bool = True


class FoundAnswer(TypedDict):
    """A passage of the text, and its probability."""

    answer: str
    score: float
    start: int
    end: int


def row_input(row: dict[str, Any]) -> str:
    """Return the question and the text."""
    return f"{row['question']}\n{row['context']}"


def evaluation_request(row: dict[str, Any]) -> tuple[QuestionInputs, QuestionOptions]:
    """Return the request that answers the row's question. The model may find no answer in the text,
    as in SQuAD 2."""
    inputs = QuestionInputs(question=row["question"], context=row["context"])
    return inputs, QuestionOptions(handle_impossible_answer=True)


def feedback_row(inputs: QuestionInputs, answer: str) -> dict[str, Any]:
    """Return the row that teaches a passage of the text as the answer.

    Raises:
        ValueError: the text does not contain the answer.
    """
    answer = answer.strip()
    start = inputs.context.find(answer)
    if start < 0:
        raise ValueError("the right answer is not a passage of the context")
    passage = {"start": start, "end": start + len(answer)}
    return {"question": inputs.question, "context": inputs.context, "answers": [passage]}
