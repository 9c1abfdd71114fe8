"""POST /v1/tasks/voice-activity-detection/{model}: the stretches of speech in a recording.

Neither OpenAI nor Hugging Face has a shape for it; the body is the same as for other audio tasks.
"""

from __future__ import annotations

from operator import itemgetter

from assay.plugins import declare
from assay_tasks_extra.voice_activity_detection.schema import DetectionOptions


class DetectionRequest(declare.MediaRequest):
    """A recording in base64."""

    parameters: DetectionOptions | None = None


ENDPOINT = declare.file_endpoint(
    "voice-activity-detection",
    "audio",
    declare.OneRecording,
    DetectionRequest,
    summary="Send a recording; the answer is `[{start, end, score}]`, in seconds.",
    options=lambda request: (request and request.parameters) or DetectionOptions(),
    result=itemgetter("segments"),
)
