"""Summarization: write the gist of a text."""

from __future__ import annotations

from registry.catalog.declaration import (
    BATCH,
    Evaluation,
    Metric,
    Modality,
    Playground,
    Recipe,
    Task,
    Unit,
)
from registry.catalog.endpoints import Endpoint
from tasks.summarization.endpoints import SummaryRequest, read_summary
from tasks.summarization.schema import (
    SummarizedText,
    SummaryInputs,
    SummaryOptions,
    evaluation_request,
    feedback_row,
    row_input,
)
from workers.hyperparameters import SequenceSettings

_TEXT = (
    "The office in Porto is closed from Monday to Wednesday because of repairs to the roof. "
    "Mail is answered by the colleagues in Lagos."
)

TASK = Task(
    name="summarization",
    title="Summarization",
    description="Writes a short text that says what a longer one says.",
    modality="text",
    inputs=(Modality.TEXT,),
    outputs=(Modality.TEXT,),
    architectures=(
        "BartForConditionalGeneration",
        "MarianMTModel",
        "PegasusForConditionalGeneration",
        "T5ForConditionalGeneration",
    ),
    engine=BATCH,
    runner="tasks.summarization.runner:SummaryRunner",
    unit=Unit.CHARACTERS,
    endpoints=(
        Endpoint(
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
    playground=Playground(body={"inputs": "$text"}, text=_TEXT),
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
        Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.summarization.fine_tune:train",
            hyperparameters=SequenceSettings,
        ),
    ),
    evaluation=Evaluation(
        request=evaluation_request,
        score="tasks.summarization.score:score",
        metrics=(
            Metric("chrf", "chrF"),
            Metric("exact_match", "Exact match", proportion=True),
        ),
        primary_metric="chrf",
        uses_training_rows=True,
    ),
    feedback_row=feedback_row,
)
