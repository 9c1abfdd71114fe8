"""Summarization: write a shorter version of a text."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from pydantic import BaseModel, ConfigDict

from assay.plugins import declare

_TEXT = (
    "The office in Porto is closed from Monday to Wednesday because of repairs to the roof. "
    "Mail is answered by the colleagues in Lagos."
)


class SummarizedText(BaseModel):
    """A text and its summary."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: declare.SequenceText
    summary: declare.SequenceText


def read_summary(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request; `name` is the deployment, from the path. Raises RequestInvalid."""
    return declare.read_sequence(body, name, declare.SequenceRequest, "summary_text")


def evaluation_request(
    row: dict[str, Any],
) -> tuple[declare.SequenceInputs, declare.SequenceOptions]:
    """Return the request that writes the summary of the row's text."""
    return declare.SequenceInputs(text=row["text"]), declare.SequenceOptions()


def feedback_row(inputs: declare.SequenceInputs, answer: str) -> dict[str, Any]:
    """Return the row that teaches the summary of a text."""
    return {"text": inputs.text, "summary": answer}


TASK = declare.Task(
    interface=1,
    name="summarization",
    title="Summarization",
    description="Summarizes a text.",
    modality="text",
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.TEXT,),
    architectures=(
        "BartForConditionalGeneration",
        "MarianMTModel",
        "PegasusForConditionalGeneration",
        "T5ForConditionalGeneration",
    ),
    engine=declare.BATCH,
    runner="assay.plugins.run:SequenceRunner",
    unit=declare.Unit.CHARACTERS,
    endpoints=(
        declare.Endpoint(
            "/v1/tasks/summarization",
            read_summary,
            named=True,
            request=declare.SequenceRequest,
            summary="Hugging Face's shape: `[{summary_text}]`.",
        ),
    ),
    input_schema=declare.SequenceInputs,
    option_schema=declare.SequenceOptions,
    result_type=str,
    sample={"inputs": _TEXT},
    playground=declare.Playground(body={"inputs": "$text"}, text=_TEXT),
    row=SummarizedText,
    row_input=itemgetter("text"),
    examples=(
        {"text": _TEXT, "summary": "Porto is closed until Wednesday; Lagos answers the mail."},
        {
            "text": "The train at nine was canceled. The next one leaves an hour later.",
            "summary": "The next train leaves at ten.",
        },
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.summarization.fine_tune:train",
            hyperparameters=declare.SequenceSettings,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.summarization.score:score",
        metrics=(
            declare.Metric("chrf", "chrF"),
            declare.Metric("exact_match", "Exact match", proportion=True),
        ),
        primary_metric="chrf",
        uses_training_rows=True,
    ),
    feedback_row=feedback_row,
)
