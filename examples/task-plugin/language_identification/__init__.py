"""Language identification: the language of a text, from a linear model of character n-grams.

This module is the declaration. It loads neither Django nor a numerical library, because the
gateway and the portal import it; only workers load the dotted names below.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from language_identification.endpoint import LanguageRequest, read_inputs


class LabeledText(BaseModel):
    """One text and the code of its language."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=20_000)
    label: str = Field(min_length=1, max_length=40)


class Hyperparameters(BaseModel):
    """Settings of training. `validation_fraction` is the share of held-out rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=12, ge=1, le=200)
    learning_rate: float = Field(default=0.5, gt=0, le=10)
    batch_size: int = Field(default=64, ge=1, le=4096)
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


def evaluation_request(row: dict[str, Any]) -> tuple[declare.TextInputs, declare.NoOptions]:
    """Return the inputs and options of the request that identifies the row's language."""
    return declare.TextInputs(input=[row["text"]]), declare.NoOptions()


TASK = declare.Task(
    interface=1,
    name="language-identification",
    title="Language identification",
    description="Identifies the language of a text.",
    modality="text",
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.LABEL,),
    architectures=("CharacterNgramClassifier",),
    engine=declare.BATCH,
    runner="language_identification.runner:LanguageRunner",
    unit=declare.Unit.CHARACTERS,
    input_schema=declare.TextInputs,
    result_type=list[declare.Label],
    endpoints=(
        declare.Endpoint(
            "/v1/tasks/language-identification", read_inputs, named=True, request=LanguageRequest
        ),
    ),
    sample={"inputs": "Bitte geben Sie eine gültige E-Mail-Adresse ein."},
    playground=declare.Playground(
        body={"inputs": "$text"}, text="Bitte geben Sie eine gültige E-Mail-Adresse ein."
    ),
    row=LabeledText,
    row_input=itemgetter("text"),
    examples=(
        {"text": "Bitte geben Sie eine gültige E-Mail-Adresse ein.", "label": "de"},
        {"text": "Veuillez saisir une adresse électronique valide.", "label": "fr"},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="language_identification.train:train",
            hyperparameters=Hyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="language_identification.score:score",
        metrics=(
            declare.Metric("accuracy", "Accuracy", proportion=True),
            declare.Metric("macro_f1", "Macro-F1"),
        ),
        primary_metric="macro_f1",
    ),
)
