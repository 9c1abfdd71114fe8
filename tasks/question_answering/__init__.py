"""Question answering: the passage of a text that answers a question."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from tasks.question_answering.endpoints import QuestionRequest, read_question
from tasks.question_answering.schema import (
    AnsweredQuestion,
    FoundAnswer,
    QuestionInputs,
    QuestionOptions,
    evaluation_request,
    feedback_row,
    row_input,
)


class QuestionHyperparameters(BaseModel):
    """Settings of fine-tuning. The new head learns ten times as fast as the encoder; `max_length`
    counts the tokens of question and text together. Longer texts are cut into windows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=3, ge=1, le=50)
    learning_rate: declare.LearningRate = 1e-4
    batch_size: int = Field(default=16, ge=1, le=512)
    max_length: int = Field(default=256, ge=32, le=8192)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


_CONTEXT = (
    "Ana Silva lives in Porto and works as a chemist. Her brother Rui moved to Lagos in 2019."
)

TASK = declare.Task(
    interface=1,
    name="question-answering",
    title="Question answering",
    description="Finds the passage of a text that answers a question.",
    modality="text",
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.TEXT,),
    architectures=(
        "BertForQuestionAnswering",
        "DistilBertForQuestionAnswering",
        "MPNetForQuestionAnswering",
        "RobertaForQuestionAnswering",
        "XLMRobertaForQuestionAnswering",
    ),
    engine=declare.BATCH,
    runner="tasks.question_answering.runner:QuestionRunner",
    unit=declare.Unit.TOKENS,
    endpoints=(
        declare.Endpoint(
            "/v1/tasks/question-answering",
            read_question,
            named=True,
            request=QuestionRequest,
            summary="Hugging Face's shape: `{answer, score, start, end}`, or a list of them.",
        ),
    ),
    input_schema=QuestionInputs,
    option_schema=QuestionOptions,
    result_type=list[FoundAnswer],
    sample={"inputs": {"question": "Where does Rui live?", "context": _CONTEXT}},
    playground=declare.Playground(
        body={"inputs": {"question": "$text", "context": "$lines_text"}},
        text="Where does Rui live?",
        lines=(_CONTEXT,),
        lines_label="Text with the answer",
    ),
    row=AnsweredQuestion,
    row_input=row_input,
    examples=(
        {
            "question": "Where does Ana Silva live?",
            "context": _CONTEXT,
            "answers": [{"start": 19, "end": 24}],
        },
        {"question": "When was Ana Silva born?", "context": _CONTEXT, "answers": []},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.question_answering.fine_tune:train",
            hyperparameters=QuestionHyperparameters,
            bases=frozenset({"question-answering", "embeddings"}),
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.question_answering.score:score",
        metrics=(
            declare.Metric("exact_match", "Exact match", proportion=True),
            declare.Metric("f1", "F1 of words"),
        ),
        primary_metric="f1",
    ),
    feedback_row=feedback_row,
)
