"""/v1/messages before a real engine: calls, stop sequences and counted tokens."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from registry.catalog import get_task
from tests.unit.tasks.openai_engine import client_of
from tests.unit.tasks.test_openai_options import WEATHER, calling

__all__ = ["calling"]

pytestmark = pytest.mark.torch
TASK = get_task("text-generation")
HI = [{"role": "user", "content": "Hi"}]


def ask(engine: Any, path: str, **body: Any) -> Any:
    client = client_of(engine, TASK, strict=False)
    answer: Any = client.post(path, body={"model": "m", "messages": HI, **body}, cast_to=object)
    return json.loads(answer)


def test_a_tool_is_called_with_an_input_that_fits_its_schema(calling: Any) -> None:
    answer = ask(
        calling,
        "/messages",
        max_tokens=80,
        tools=[{"name": "weather", "input_schema": WEATHER}],
        tool_choice={"type": "tool", "name": "weather"},
    )
    (block,) = answer["content"]
    assert (block["type"], block["name"]) == ("tool_use", "weather")
    jsonschema.validate(block["input"], WEATHER)
    assert answer["stop_reason"] == "tool_use"


def test_the_stop_sequence_that_ended_the_answer_is_named(calling: Any) -> None:
    greedy = {"max_tokens": 12, "temperature": 0}
    whole = ask(calling, "/messages", **greedy)
    text = whole["content"][0]["text"]
    assert whole["stop_reason"] == "max_tokens"
    stop = text[4:7]
    ended = ask(calling, "/messages", stop_sequences=["never seen", stop], **greedy)
    assert (ended["stop_reason"], ended["stop_sequence"]) == ("stop_sequence", stop)
    assert ended["content"][0]["text"] == text[: text.index(stop)]
    plain = ask(calling, "/chat/completions", stop=[stop], **greedy)
    assert plain["choices"][0]["finish_reason"] == "stop"


def test_counted_tokens_are_those_that_an_answer_reads(calling: Any) -> None:
    system = "Be brief."
    counted = ask(calling, "/messages/count_tokens", system=system)
    answered = ask(calling, "/messages", system=system, max_tokens=1)
    assert counted == {"input_tokens": answered["usage"]["input_tokens"]}
    assert counted["input_tokens"] > 5
