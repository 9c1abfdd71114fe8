"""POST /v1/tasks/voice-activity-detection/{model}: the stretches of a recording that hold speech.

Neither OpenAI nor Hugging Face has a shape for it; the body is as for other tasks that read audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from registry.catalog.endpoints import Answer, Plan
from registry.catalog.inference import MediaRequest, read_file
from registry.catalog.requests import Body
from tasks.voice_activity_detection.schema import DetectionOptions, OneRecording


class DetectionRequest(MediaRequest):
    """A recording in base64."""

    parameters: DetectionOptions | None = None


def read_detection(body: Body, request_id: str, name: str) -> Plan:
    """Read a recording, raw or as JSON. Raises RequestInvalid."""
    audio, request = read_file(body, "audio", DetectionRequest)
    return Plan(
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

    def whole(self, answer: Answer) -> list[Any]:
        return list(answer.results[0]["segments"])
