"""Each method of Hugging Face's client is called in a test, or has no task here."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from huggingface_hub import InferenceClient

TESTS = Path(__file__).resolve().parents[2]
NOT_TASKS = {"chat", "close", "get_endpoint_info", "health_check"}
# Tasks that Assay does not have. Images are described by `visual_question_answering`.
WITHOUT_A_TASK = {
    "audio_to_audio",
    "document_question_answering",
    "fill_mask",
    "image_to_image",
    "image_to_text",
    "image_to_video",
    "table_question_answering",
    "tabular_regression",
    # Its providers take the names of models alone, not the address of one.
    "text_to_video",
}


def test_every_method_that_has_a_task_is_tested() -> None:
    methods = {
        name
        for name, _ in inspect.getmembers(InferenceClient, inspect.isfunction)
        if not name.startswith("_")
    }
    sources = "".join(
        path.read_text()
        for folder in ("unit/tasks", "live")
        for path in (TESTS / folder).glob("*.py")
    )
    called = {name for name in methods if re.search(rf"\.{name}\(", sources)}
    assert methods - called - NOT_TASKS == WITHOUT_A_TASK
