"""Audio classification: one label out of a fixed set for a recording."""

from __future__ import annotations

import base64
import struct
from operator import itemgetter
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

# A tenth of a second of silence as WAV: 400 samples of 8 bits, 4,000 a second.
_SILENCE = (
    b"RIFF" + struct.pack("<I", 436) + b"WAVE"
    + b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 4_000, 4_000, 1, 8)
    + b"data" + struct.pack("<I", 400) + b"\x80" * 400
)  # fmt: skip

_HeadFactor = Annotated[float, Field(ge=0.1, le=100)]


class LabeledRecording(BaseModel):
    """One recording and its label."""

    model_config = ConfigDict(extra="forbid", strict=True)

    audio: declare.AudioFile
    label: str = Field(min_length=1, max_length=100)


class TrainingHyperparameters(declare.ClassifierSettings):
    """Settings of training. The new head learns `head_factor` times as fast as the other weights.

    `shift` moves each recording in time, by up to this share of its length, for more variety.
    """

    learning_rate: declare.LearningRate = 1e-4
    head_factor: _HeadFactor = 10.0
    shift: float = Field(default=0.0, ge=0, le=0.5)


class LoraHyperparameters(declare.LoraSettings, TrainingHyperparameters):
    """Settings of training an adapter. The head learns `head_factor` times as fast as LoRA."""

    learning_rate: declare.LearningRate = 1e-3
    head_factor: _HeadFactor = 1.0


TASK = declare.Task(
    interface=1,
    name="audio-classification",
    title="Audio classification",
    description="Assigns a recording one of the labels in its training data.",
    modality="audio",
    family=declare.Family.AUDIO,
    inputs=(declare.Modality.AUDIO,),
    outputs=(declare.Modality.LABEL,),
    architectures=(
        "ASTForAudioClassification",
        "HubertForSequenceClassification",
        "SEWForSequenceClassification",
        "UniSpeechForSequenceClassification",
        "UniSpeechSatForSequenceClassification",
        "Wav2Vec2ConformerForSequenceClassification",
        "Wav2Vec2ForSequenceClassification",
        "WavLMForSequenceClassification",
        "WhisperForAudioClassification",
    ),
    engine=declare.BATCH,
    runner="tasks.audio_classification.runner:AudioClassifierRunner",
    unit=declare.Unit.AUDIO_SECONDS,
    input_schema=declare.OneRecording,
    option_schema=declare.LabelOptions,
    result_type=list[declare.Label],
    endpoints=(
        declare.label_endpoint(
            "audio-classification", "audio", declare.OneRecording, noun="recording"
        ),
    ),
    sample={"inputs": base64.b64encode(_SILENCE).decode(), "parameters": {"top_k": 3}},
    playground=declare.Playground(body=None, path="/v1/tasks/audio-classification/{model}"),
    row=LabeledRecording,
    row_input=itemgetter("audio"),
    examples=(
        {"audio": "0" * 64, "label": "yes"},
        {"audio": "1" * 64, "label": "no"},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.audio_classification.fine_tune:train",
            hyperparameters=TrainingHyperparameters,
        ),
        declare.Recipe(
            method="lora",
            title="LoRA",
            makes="adapter",
            train="tasks.audio_classification.fine_tune:train",
            hyperparameters=LoraHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=declare.label_requests("audio", declare.OneRecording),
        score="tasks.audio_classification.score:score",
        metrics=(
            declare.Metric("accuracy", "Accuracy", proportion=True),
            declare.Metric("macro_f1", "Macro-F1"),
        ),
        primary_metric="macro_f1",
        uses_training_rows=True,
    ),
)
