"""Summarization: write the gist of a text."""

from __future__ import annotations

from assay.plugins import declare
from tasks.summarization.endpoints import SummaryRequest, read_summary
from tasks.summarization.schema import (
    SummarizedText,
    SummaryInputs,
    SummaryOptions,
    evaluation_request,
    feedback_row,
    row_input,
)

_TEXT = (
    "The office in Porto is closed from Monday to Wednesday because of repairs to the roof. "
    "Mail is answered by the colleagues in Lagos."
)

TASK = declare.Task(
    interface=1,
    name="summarization",
    title="Summarization",
    description="Writes a short text that says what a longer one says.",
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
    runner="tasks.summarization.runner:SummaryRunner",
    unit=declare.Unit.CHARACTERS,
    endpoints=(
        declare.Endpoint(
            "/v1/tasks/summarization",
            read_summary,
            named=True,
            request=SummaryRequest,
            summary="Hugging Face's shape: `[{summary_text}]`.",
        ),
    ),
    input_schema=SummaryInputs,
    option_schema=SummaryOptions,
    result_type=str,
    sample={"inputs": _TEXT},
    playground=declare.Playground(body={"inputs": "$text"}, text=_TEXT),
    row=SummarizedText,
    row_input=row_input,
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
