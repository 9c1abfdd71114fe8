"""Text to speech: a recording of a text, spoken by a model's voice."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from assay.plugins import declare
from tasks.text_to_speech.endpoints import (
    SpeechRequest,
    TextToSpeechRequest,
    read_speech,
    read_text_to_speech,
)
from tasks.text_to_speech.schema import Sentence, SpeechInputs, SpeechOptions


def evaluation_request(row: dict[str, Any]) -> tuple[SpeechInputs, SpeechOptions]:
    """Return the request that speaks the row's text."""
    return SpeechInputs(text=row["text"]), SpeechOptions()


TASK = declare.Task(
    interface=1,
    name="text-to-speech",
    title="Text to speech",
    description="Speaks a text.",
    modality="text",
    family=declare.Family.AUDIO,
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.AUDIO,),
    architectures=("PiperVoice",),
    engine=declare.BATCH,
    runner="tasks.text_to_speech.runner:PiperRunner",
    unit=declare.Unit.CHARACTERS,
    input_schema=SpeechInputs,
    option_schema=SpeechOptions,
    endpoints=(
        declare.Endpoint(
            "/v1/audio/speech",
            read_speech,
            request=SpeechRequest,
            summary="OpenAI's shape: the recording itself, as MP3, Opus, FLAC, WAV or PCM.",
        ),
        declare.Endpoint(
            "/v1/tasks/text-to-speech",
            read_text_to_speech,
            named=True,
            request=TextToSpeechRequest,
            summary="Hugging Face's shape: the recording itself, as FLAC.",
        ),
    ),
    sample={"input": "The review is complete.", "voice": "default"},
    playground=declare.Playground(
        body={"inputs": "$text"},
        path="/v1/tasks/text-to-speech/{model}",
        text="The review is complete. The model can be released today.",
    ),
    row=Sentence,
    row_input=itemgetter("text"),
    examples=(
        {"text": "The review is complete."},
        {"text": "Please send the report to the board before Friday."},
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.text_to_speech.score:score",
        metrics=(
            declare.Metric("wer", "Word error rate, round trip", higher_is_better=False),
            declare.Metric("cer", "Character error rate, round trip", higher_is_better=False),
        ),
        primary_metric="wer",
        judge="automatic-speech-recognition",
    ),
)
