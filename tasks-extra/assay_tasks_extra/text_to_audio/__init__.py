"""Text to audio: music in four voices, composed by a model and played by a synthesizer."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from assay_tasks_extra.text_to_audio.endpoints import TextToAudioRequest, read_text_to_audio
from assay_tasks_extra.text_to_audio.schema import MusicInputs, MusicOptions, NamedPiece

PROMPT = "A minor, 96 bpm, notes A4 B4 C5 B4"


class ComposerHyperparameters(BaseModel):
    """Settings of training. Each step reads `batch_size` windows of the pieces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=600, ge=4, le=100_000)
    learning_rate: declare.LearningRate = 5e-3
    batch_size: int = Field(default=8, ge=1, le=256)
    weight_decay: float = Field(default=0.1, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


def evaluation_request(row: dict[str, Any]) -> tuple[MusicInputs, MusicOptions]:
    """Return the request for the likelihood of the row's piece."""
    return MusicInputs(music=row["music"]), MusicOptions()


TASK = declare.Task(
    interface=1,
    name="text-to-audio",
    title="Text to audio",
    description="Composes music in four voices from a key, a tempo and first notes, and plays it.",
    modality="text",
    family=declare.Family.AUDIO,
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.AUDIO,),
    architectures=("GPT2LMHeadModel", "LlamaForCausalLM"),
    engine=declare.BATCH,
    runner="assay_tasks_extra.text_to_audio.runner:ComposerRunner",
    unit=declare.Unit.AUDIO_SECONDS,
    input_schema=MusicInputs,
    option_schema=MusicOptions,
    endpoints=(
        declare.Endpoint(
            "/v1/tasks/text-to-audio",
            read_text_to_audio,
            named=True,
            request=TextToAudioRequest,
            summary="Hugging Face's shape: a key, tempo or notes as text; the recording, as WAV.",
        ),
    ),
    sample={"inputs": PROMPT, "parameters": {"seconds": 12, "seed": 7}},
    playground=declare.Playground(body={"inputs": "$text"}, text=PROMPT),
    row=NamedPiece,
    row_input=itemgetter("music"),
    examples=(
        {
            "name": "cadence",
            "music": "C major 96 E5,G4,C4,C3 _,_,_,_ F5,A4,C4,F3 _,_,_,_ D5,G4,B3,G3 _,_,_,_ "
            "C5,G4,C4,C3 _,_,_,_",
        },
        {
            "name": "sigh",
            "music": "A minor 72 C5,A4,E4,A3 _,_,_,_ B4,G#4,E4,E3 _,_,_,_ A4,E4,C4,A2 _,_,_,_ "
            "-,-,-,- _,_,_,_",
        },
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="assay_tasks_extra.text_to_audio.train:train",
            hyperparameters=ComposerHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="assay_tasks_extra.text_to_audio.score:score",
        metrics=(
            declare.Metric("bits_per_note", "Bits per note", higher_is_better=False),
            declare.Metric("perplexity", "Perplexity of a note", higher_is_better=False),
        ),
        primary_metric="bits_per_note",
        uses_training_rows=True,
    ),
)
