"""Batches through the official client, with a responder in place of a worker."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import openai

from registry.batches.models import Batch
from tests.waiting import wait_until

CHAT = "/v1/chat/completions"


def line(name: str, text: str = "Hi", **changes: Any) -> dict[str, Any]:
    """Return a line that asks `writer`."""
    body = {"model": "writer", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": body, **changes}


def content_of(lines: Iterable[dict[str, Any]]) -> bytes:
    """Return the file that holds the lines."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def create(
    client: openai.OpenAI,
    lines: Iterable[dict[str, Any]] | bytes,
    endpoint: str = CHAT,
    **more: Any,
) -> Any:
    """Upload the lines, and create their batch."""
    data = lines if isinstance(lines, bytes) else content_of(lines)
    file = client.files.create(file=("input.jsonl", data), purpose="batch")
    options: Any = {"endpoint": endpoint, "completion_window": "24h", **more}
    return client.batches.create(input_file_id=file.id, **options)


def ended(client: openai.OpenAI, id: str, *states: str) -> Any:  # noqa: A002
    """Return the batch once it is in one of these states."""
    wait_until(lambda: state_of(id) in (states or ("completed",)))
    return client.batches.retrieve(id)


def state_of(id: str) -> str:  # noqa: A002
    """Return the state that the row has."""
    return str(Batch.objects.values_list("state", flat=True).get(pk=id))


def results(client: openai.OpenAI, file: str | None) -> dict[str, Any]:
    """Return the lines of an output or error file by custom ID; each comes once."""
    if file is None:
        return {}
    found = [json.loads(each) for each in client.files.content(file).text.splitlines()]
    by_id = {each["custom_id"]: each for each in found}
    assert len(by_id) == len(found)
    return by_id
