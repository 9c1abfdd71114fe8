"""Translation: write a text in another language."""

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
from tasks.translation.endpoints import TranslationRequest, read_translation
from tasks.translation.schema import (
    TranslatedText,
    TranslationInputs,
    TranslationOptions,
    evaluation_request,
    feedback_row,
    row_input,
)
from workers.hyperparameters import SequenceSettings

_TEXT = "Insert a new row"

TASK = Task(
    name="translation",
    title="Translation",
    description="Writes a text in another language.",
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
    runner="tasks.translation.runner:TranslationRunner",
    unit=Unit.CHARACTERS,
    endpoints=(
        Endpoint(
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
    playground=Playground(body={"inputs": "$text"}, text=_TEXT),
    row=TranslatedText,
    row_input=row_input,
    examples=(
        {"source": "Insert Row", "target": "Insérer une ligne"},
        {"source": "Delete the page", "target": "Supprimer la page"},
    ),
    recipes=(
        Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.translation.fine_tune:train",
            hyperparameters=SequenceSettings,
        ),
    ),
    evaluation=Evaluation(
        request=evaluation_request,
        score="tasks.translation.score:score",
        metrics=(
            Metric("chrf", "chrF"),
            Metric("exact_match", "Exact match", proportion=True),
        ),
        primary_metric="chrf",
        uses_training_rows=True,
    ),
    feedback_row=feedback_row,
)
