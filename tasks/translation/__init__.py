"""Translation: write a text in another language."""

from __future__ import annotations

from assay.plugins import declare
from tasks.translation.endpoints import TranslationRequest, read_translation
from tasks.translation.schema import (
    TranslatedText,
    TranslationInputs,
    TranslationOptions,
    evaluation_request,
    feedback_row,
    row_input,
)

_TEXT = "Insert a new row"

TASK = declare.Task(
    interface=1,
    name="translation",
    title="Translation",
    description="Writes a text in another language.",
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
    runner="tasks.translation.runner:TranslationRunner",
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
    input_schema=TranslationInputs,
    option_schema=TranslationOptions,
    result_type=str,
    sample={"inputs": _TEXT},
    playground=declare.Playground(body={"inputs": "$text"}, text=_TEXT),
    row=TranslatedText,
    row_input=row_input,
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
