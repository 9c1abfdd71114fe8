"""Translation: write a text in another language."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from pydantic import BaseModel, ConfigDict

from assay.plugins import declare

_TEXT = "Insert a new row"


class TranslatedText(BaseModel):
    """A text and its translation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: declare.SequenceText
    target: declare.SequenceText


class TranslationParameters(declare.SequenceParameters):
    """Settings of a translation. A model translates between the languages of its training, so
    `src_lang` and `tgt_lang` are not supported."""

    src_lang: None = None
    tgt_lang: None = None


class TranslationRequest(declare.SequenceRequest):
    """One text."""

    parameters: TranslationParameters | None = None


def read_translation(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request; `name` is the deployment, from the path. Raises RequestInvalid."""
    return declare.read_sequence(body, name, TranslationRequest, "translation_text")


def evaluation_request(
    row: dict[str, Any],
) -> tuple[declare.SequenceInputs, declare.SequenceOptions]:
    """Return the request that writes the translation of the row's text."""
    return declare.SequenceInputs(text=row["source"]), declare.SequenceOptions()


def feedback_row(inputs: declare.SequenceInputs, answer: str) -> dict[str, Any]:
    """Return the row that teaches the translation of a text."""
    return {"source": inputs.text, "target": answer}


TASK = declare.Task(
    interface=1,
    name="translation",
    title="Translation",
    description="Translates a text into another language.",
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
            "/v1/tasks/translation",
            read_translation,
            named=True,
            request=TranslationRequest,
            summary="Hugging Face's shape: `[{translation_text}]`.",
        ),
    ),
    input_schema=declare.SequenceInputs,
    option_schema=declare.SequenceOptions,
    result_type=str,
    sample={"inputs": _TEXT},
    playground=declare.Playground(body={"inputs": "$text"}, text=_TEXT),
    row=TranslatedText,
    row_input=itemgetter("source"),
    examples=(
        {"source": "Insert Row", "target": "Insérer une ligne"},
        {"source": "Delete the page", "target": "Supprimer la page"},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.translation.fine_tune:train",
            hyperparameters=declare.SequenceSettings,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.translation.score:score",
        metrics=(
            declare.Metric("chrf", "chrF"),
            declare.Metric("exact_match", "Exact match", proportion=True),
        ),
        primary_metric="chrf",
        uses_training_rows=True,
    ),
    feedback_row=feedback_row,
)
