"""Automatic speech recognition: the text of a recording, with times."""

from __future__ import annotations

import base64
import struct
from operator import itemgetter
from typing import Any

from assay.plugins import declare
from tasks.automatic_speech_recognition.endpoints import (
    SpeechRequest,
    TranscriptionRequest,
    TranslationRequest,
    read_speech,
    read_transcription,
    read_translation,
)
from tasks.automatic_speech_recognition.schema import (
    Recording,
    SpeechOptions,
    Transcribed,
    Window,
)

# A tenth of a second of silence as WAV: 400 samples of 8 bits, 4,000 a second.
_SILENCE = (
    struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 436, b"WAVEfmt ", 16, 1, 1, 4_000, 4_000, 1, 8,
                b"data", 400)
    + b"\x80" * 400
)  # fmt: skip


def evaluation_request(row: dict[str, Any]) -> tuple[Recording, SpeechOptions]:
    """Return the request that transcribes the row's recording."""
    return Recording(audio=row["audio"]), SpeechOptions()


TASK = declare.Task(
    interface=1,
    name="automatic-speech-recognition",
    title="Speech recognition",
    description="Transcribes a recording, with the times of its segments.",
    modality="audio",
    family=declare.Family.AUDIO,
    inputs=(declare.Modality.AUDIO,),
    outputs=(declare.Modality.TEXT,),
    architectures=("WhisperForConditionalGeneration",),
    engine=declare.BATCH,
    runner="tasks.automatic_speech_recognition.runner:SpeechRunner",
    unit=declare.Unit.AUDIO_SECONDS,
    input_schema=Recording,
    option_schema=SpeechOptions,
    result_type=Window,
    endpoints=(
        declare.Endpoint(
            "/v1/audio/transcriptions",
            read_transcription,
            content_types=("multipart/form-data",),
            takes_media=True,
            request=TranscriptionRequest,
            summary="OpenAI's shape: a form with `file`; JSON, text, SRT or VTT comes back.",
        ),
        declare.Endpoint(
            "/v1/audio/translations",
            read_translation,
            content_types=("multipart/form-data",),
            takes_media=True,
            request=TranslationRequest,
            summary="OpenAI's shape: as transcriptions, but the text comes back in English.",
        ),
        declare.Endpoint(
            "/v1/tasks/automatic-speech-recognition",
            read_speech,
            named=True,
            content_types=declare.content_types("audio"),
            takes_media=True,
            request=SpeechRequest,
            summary="Hugging Face's shape: send the recording; the answer is `{text}`.",
        ),
    ),
    # Sample of the second endpoint; the first one takes a form.
    sample={"inputs": base64.b64encode(_SILENCE).decode("ascii")},
    playground=declare.Playground(body=None, path="/v1/tasks/automatic-speech-recognition/{model}"),
    row=Transcribed,
    row_input=itemgetter("audio"),
    examples=(
        {"audio": "0" * 64, "text": "He was not an ill-disposed young man."},
        {"audio": "1" * 64, "text": "He might even have been made amiable himself."},
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.automatic_speech_recognition.score:score",
        metrics=(
            declare.Metric("wer", "Word error rate", higher_is_better=False),
            declare.Metric("cer", "Character error rate", higher_is_better=False),
        ),
        primary_metric="wer",
    ),
)
