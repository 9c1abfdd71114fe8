"""Voice activity detection: find the speech in a recording."""

from __future__ import annotations

import base64
import struct
from operator import itemgetter
from typing import Any

from assay.plugins import declare
from assay_tasks_extra.voice_activity_detection.endpoints import ENDPOINT
from assay_tasks_extra.voice_activity_detection.schema import (
    Activity,
    DetectionOptions,
    MarkedRecording,
)

# A tenth of a second of silence as WAV: 400 samples of 8 bits, 4,000 a second.
_SILENCE = (
    b"RIFF" + struct.pack("<I", 436) + b"WAVE"
    + b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 4_000, 4_000, 1, 8)
    + b"data" + struct.pack("<I", 400) + b"\x80" * 400
)  # fmt: skip


def evaluation_request(row: dict[str, Any]) -> tuple[declare.OneRecording, DetectionOptions]:
    """Return the request that finds speech in the row's recording, with default settings."""
    return declare.OneRecording(audio=row["audio"]), DetectionOptions()


TASK = declare.Task(
    interface=1,
    name="voice-activity-detection",
    title="Voice activity detection",
    description="Finds the stretches of a recording that contain speech.",
    modality="audio",
    family=declare.Family.AUDIO,
    inputs=(declare.Modality.AUDIO,),
    outputs=(declare.Modality.SERIES,),
    architectures=("SileroVad",),
    engine=declare.BATCH,
    runner="assay_tasks_extra.voice_activity_detection.runner:VoiceActivityRunner",
    unit=declare.Unit.AUDIO_SECONDS,
    input_schema=declare.OneRecording,
    option_schema=DetectionOptions,
    result_type=Activity,
    endpoints=(ENDPOINT,),
    sample={"inputs": base64.b64encode(_SILENCE).decode(), "parameters": {"threshold": 0.5}},
    playground=declare.Playground(body=None, path="/v1/tasks/voice-activity-detection/{model}"),
    row=MarkedRecording,
    row_input=itemgetter("audio"),
    examples=(
        {"audio": "0" * 64, "segments": [{"start": 0.5, "end": 2.25}]},
        {"audio": "1" * 64, "segments": []},
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="assay_tasks_extra.voice_activity_detection.score:score",
        metrics=(
            declare.Metric("f1", "F1"),
            declare.Metric("precision", "Precision"),
            declare.Metric("recall", "Recall"),
            declare.Metric("accuracy", "Accuracy"),
        ),
        primary_metric="f1",
    ),
)
