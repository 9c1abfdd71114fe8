"""POST /v1/tasks/voice-activity-detection/{model}: the stretches of a recording that hold speech.

Neither OpenAI nor Hugging Face has a shape for it; the body is as for other tasks that read audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from assay.plugins import declare
from assay_tasks_extra.voice_activity_detection.schema import DetectionOptions, OneRecording


class DetectionRequest(declare.MediaRequest):
    """A recording in base64."""

    parameters: DetectionOptions | None = None


def read_detection(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read a recording, raw or as JSON. Raises RequestInvalid."""
    audio, request = declare.read_file(body, "audio", DetectionRequest)
    return declare.Plan(
        model=name,
        inputs=OneRecording(audio=audio),
        renderer=SegmentsRenderer(),
        tokens=0,
        prompt_tokens=0,
        options=(request and request.parameters) or DetectionOptions(),
    )


@dataclass(slots=True)
class SegmentsRenderer:
    """[{start, end, score}, …], in order."""

    def whole(self, answer: declare.Answer) -> list[Any]:
        return list(answer.results[0]["segments"])
