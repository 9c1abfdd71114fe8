"""Unmodified third-party clients of the inference API, with Engineering's key."""

from __future__ import annotations

from typing import Any

import httpx
from huggingface_hub import InferenceClient
from openai import OpenAI

from assay_demo.stage import Stage

TIMEOUT_S = 120


def openai_client(stage: Stage, key: str = "") -> OpenAI:
    """Return OpenAI's client, which checks answers strictly; `key` replaces Engineering's.

    By default, it repeats a request twice after a 503, such as one that reaches a gateway before
    the notice of a new replica.
    """
    return OpenAI(
        base_url=f"{stage.stack.url}/v1",
        api_key=key or stage.facts["key"],
        timeout=TIMEOUT_S,
        _strict_response_validation=True,
    )


def hugging_face_client(stage: Stage, task: str, model: str) -> InferenceClient:
    """Return Hugging Face's client of one deployment."""
    return InferenceClient(
        model=f"{stage.stack.url}/v1/tasks/{task}/{model}",
        token=stage.facts["key"],
        timeout=TIMEOUT_S,
    )


def posted(stage: Stage, path: str, content_type: str = "", **request: Any) -> httpx.Response:
    """POST to a path below `/v1` with a plain HTTP client; raises StepFailed unless it succeeds."""
    headers = {"authorization": f"Bearer {stage.facts['key']}"}
    if content_type:
        headers["content-type"] = content_type
    url = f"{stage.stack.url}/v1/{path}"
    answer = httpx.post(url, headers=headers, timeout=TIMEOUT_S, **request)
    stage.expect(answer.status_code == 200, f"{path} answers: {answer.text[:200]}")
    return answer
