"""Responses of providers: the same as chat completions to callers, and without state."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.generation import (
    ChatMessage,
    GenerationInputs,
    ImagePart,
    SamplingOptions,
    TextPart,
    Tool,
    ToolCall,
)
from tests.unit.workers.provider import (
    Answers,
    Behavior,
    Provider,
    calling,
    event,
    replies,
    streams,
)
from workers.engines.protocol import RequestRefused

ALL = ["max_tokens", "temperature", "top_p", "logprobs", "json_schema", "tools", "images"]
PNG = b"\x89PNG\r\n\x1a\nimage"
USAGE = {
    "input_tokens": 9,
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 14,
}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}


def asked(
    folder: Path, behave: Behavior, inputs: Any = "Hello", *, stream: bool, **options: Any
) -> tuple[Answers, Provider]:
    with calling(folder, behave, operation="responses", parameters=ALL) as (caller, provider):
        answers = caller.ask(inputs, SamplingOptions(**options), stream=stream)
        assert answers.end
    return answers, provider


def message(*texts: str) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": parts}


def function(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{call_id}",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def ended(status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "model": "test-1", "status": status, "usage": USAGE, **more}


def last(status: str = "completed", **more: Any) -> bytes:
    return event({"type": f"response.{status}", "response": ended(status, **more)})


def of(kind: str, **fields: Any) -> bytes:
    return event({"type": f"response.{kind}", "output_index": 1, "content_index": 0, **fields})


CREATED = event({"type": "response.created", "response": {"model": "test-1", "output": []}})
TEXT = [
    CREATED,
    event({"type": "response.output_item.added", "output_index": 0, "item": THOUGHT}),
    event({"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "Hm."}),
    of("output_item.added", item=message()),
    of("output_text.delta", delta="Hel"),
    of("output_text.delta", delta="lo"),
    of("output_text.done", text="Hello"),
    of("output_item.done", item=message("Hello")),
    last(output=[THOUGHT, message("Hello")]),
]


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_comes_without_reasoning_and_with_usage(tmp_path: Path, stream: bool) -> None:
    behave = streams(*TEXT) if stream else replies(ended(output=[THOUGHT, message("Hel", "lo")]))
    answers, provider = asked(tmp_path, behave, stream=stream)
    done = answers.done
    assert (answers.text, done.finish_reason) == ("Hello", "stop")
    assert (done.prompt_tokens, done.completion_tokens, done.units) == (9, 5, 14)
    assert not done.estimated
    (received,) = provider.received
    assert received.path == "/v1/responses"
    assert received.json == {
        "model": "test-1",
        "input": [{"role": "user", "content": "Hello"}],
        "store": False,
        "max_output_tokens": 1_000,
        **({"stream": True} if stream else {}),
    }


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_keep_their_order_and_arguments(tmp_path: Path, stream: bool) -> None:
    calls = [function("c1", "time", '{"zone":"UTC"}'), function("c2", "date", "{}")]
    behave = replies(ended(output=[THOUGHT, *calls]))
    if stream:
        behave = streams(
            CREATED,
            of("output_item.added", item={**calls[0], "arguments": ""}),
            of("function_call_arguments.delta", delta='{"zone":'),
            of("function_call_arguments.delta", delta='"UTC"}'),
            of("function_call_arguments.done", arguments='{"zone":"UTC"}'),
            of("output_item.done", item=calls[0]),
            # Some servers send whole calls.
            of("output_item.done", item=calls[1], output_index=2),
            last(output=calls),
        )
    answers, _ = asked(tmp_path, behave, stream=stream)
    assert answers.calls == [("time", '{"zone":"UTC"}'), ("date", "{}")]
    assert answers.done.finish_reason == "tool_calls"


def test_texts_and_arguments_without_pieces_are_read_from_their_ends(tmp_path: Path) -> None:
    behave = streams(
        of("output_text.done", text="Let me see.", output_index=0),
        of("output_item.added", item={**function("c1", "time", ""), "arguments": ""}),
        of("function_call_arguments.done", arguments="{}"),
        last(),
    )
    answers, _ = asked(tmp_path, behave, stream=True)
    assert (answers.text, answers.calls) == ("Let me see.", [("time", "{}")])


def test_items_without_numbers_are_known_by_their_ids(tmp_path: Path) -> None:
    def plain(kind: str, **fields: Any) -> bytes:
        return event({"type": f"response.{kind}", **fields})

    # In llama.cpp's answers, items have no numbers, and calls have no IDs but their own.
    call = {"type": "function_call", "call_id": "fc_1", "name": "time", "arguments": ""}
    behave = streams(
        plain("created", response={"id": "resp_1"}),
        plain("output_item.added", item={"type": "message", "id": "msg_1", "content": []}),
        plain("output_text.delta", item_id="msg_1", delta="Hel"),
        plain("output_text.delta", item_id="msg_1", delta="lo"),
        plain("output_text.done", item_id="msg_1", text="Hello"),
        plain("output_item.added", item=call),
        plain("function_call_arguments.delta", item_id="fc_1", delta="{}"),
        plain("function_call_arguments.done", item_id="fc_1", arguments="{}"),
        plain("output_item.done", item={**call, "arguments": "{}"}),
        last(),
    )
    answers, _ = asked(tmp_path, behave, stream=True)
    assert (answers.text, answers.calls) == ("Hello", [("time", "{}")])


def test_a_conversation_with_tools_and_images(tmp_path: Path) -> None:
    parts = [TextPart(type="text", text="Which?"), ImagePart(type="image")]
    seen = [TextPart(type="text", text="12:00"), ImagePart(type="image")]
    call = ToolCall(id="c1", name="time", arguments={"zone": "UTC"})
    inputs = GenerationInputs(
        messages=[
            ChatMessage(role="system", content="Be brief."),
            ChatMessage(role="user", content=parts),
            ChatMessage(role="assistant", content="", tool_calls=[call]),
            ChatMessage(role="tool", content=seen, tool_call_id="c1"),
            ChatMessage(role="assistant", content="Noon."),
            ChatMessage(role="user", content="Thanks"),
        ],
        images=[BytesIO(PNG), BytesIO(PNG)],
        tools=[Tool(name="time", description="Tells the time.")],
    )
    options = {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 20,
        "logprobs": 2,
        "json_schema": {"type": "object"},
        "tool_name": "time",
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
    _, provider = asked(
        tmp_path, replies(ended(output=[message("x")])), inputs, stream=False, **options
    )
    sent = provider.received[0].json
    system, user, called, result, answer, _ = sent.pop("input")
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"][0] == {"type": "input_text", "text": "Which?"}
    assert user["content"][1]["image_url"].startswith("data:image/png;base64,")
    assert called == {
        "type": "function_call",
        "call_id": "c1",
        "name": "time",
        "arguments": '{"zone":"UTC"}',
    }
    assert (result["type"], result["call_id"]) == ("function_call_output", "c1")
    assert [each["type"] for each in result["output"]] == ["input_text", "input_image"]
    assert answer == {"role": "assistant", "content": "Noon."}
    assert sent == {
        "model": "test-1",
        "store": False,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 20,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "text": {
            "format": {
                "type": "json_schema",
                "name": "answer",
                "schema": {"type": "object"},
                "strict": True,
            }
        },
        "tools": [
            {
                "type": "function",
                "name": "time",
                "description": "Tells the time.",
                "parameters": {"type": "object", "properties": {}},
                "strict": False,
            }
        ],
        "tool_choice": {"type": "function", "name": "time"},
        "parallel_tool_calls": False,
    }


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"stop": ["END"]}, "stop"),
        ({"seed": 1}, "seed"),
        ({"choices": 2}, "choices"),
        ({"logit_bias": {"1": 1.0}}, "logit_bias"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"echo": True}, "echo"),
    ],
)
def test_what_responses_cannot_honor_is_refused_by_name(
    tmp_path: Path, options: dict[str, Any], name: str
) -> None:
    with (
        calling(tmp_path, streams(*TEXT), operation="responses", parameters=ALL) as (caller, _),
        pytest.raises(RequestRefused, match=name),
    ):
        caller.ask("Hello", SamplingOptions(**options))


@pytest.mark.parametrize(
    ("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_incomplete_answer_says_why(
    tmp_path: Path, stream: bool, reason: str, finish: str
) -> None:
    more = {"incomplete_details": {"reason": reason}}
    behave = (
        streams(*TEXT[:6], last("incomplete", **more))
        if stream
        else replies(ended("incomplete", output=[message("Hello")], **more))
    )
    answers, _ = asked(tmp_path, behave, stream=stream)
    assert (answers.text, answers.done.finish_reason) == ("Hello", finish)


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_passed_on(tmp_path: Path, stream: bool) -> None:
    part = {"type": "refusal", "refusal": "No."}
    whole = ended(output=[{"type": "message", "content": [part]}])
    behave = (
        streams(of("refusal.delta", delta="No."), of("refusal.done", refusal="No."), last())
        if stream
        else replies(whole)
    )
    assert asked(tmp_path, behave, stream=stream)[0].text == "No."


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_are_passed_on(tmp_path: Path, stream: bool) -> None:
    likely = [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}]
    part = {"type": "output_text", "text": "Hi", "logprobs": likely}
    behave = (
        streams(of("output_text.delta", delta="Hi", logprobs=likely), last())
        if stream
        else replies(ended(output=[{"type": "message", "content": [part]}]))
    )
    answers, _ = asked(tmp_path, behave, stream=stream, logprobs=0)
    assert answers.deltas[0].scores == [("Hi", -0.1, [])]


UNLUCKY = {"code": "x", "message": "no luck"}


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        pytest.param(TEXT[:-1], "before it was complete", id="no end"),
        pytest.param([*TEXT[:5], TEXT[5][:-20]], "before it was complete", id="half an event"),
        pytest.param([last("failed", error=UNLUCKY)], "no luck", id="failed"),
        pytest.param([event({"type": "error", **UNLUCKY})], "no luck", id="error"),
        pytest.param([event({"type": "error", "error": UNLUCKY})], "no luck", id="nested"),
        pytest.param([last("incomplete")], "malformed", id="incomplete without a reason"),
        pytest.param(
            [event({"type": "response.completed", "response": ended("queued")})],
            "ended as 'queued'",
            id="queued",
        ),
        pytest.param([of("function_call_arguments.delta", delta="")], "no tool call", id="no call"),
        pytest.param([of("output_text.delta", delta=7)], "malformed", id="a number as text"),
        pytest.param([event({"type": "response.output_text.done"})], "malformed", id="no place"),
        pytest.param([event("[1]")], "malformed", id="a list"),
    ],
)
def test_a_stream_that_fails_is_a_failure(tmp_path: Path, events: list[bytes], fault: str) -> None:
    failed = asked(tmp_path, streams(*events), stream=True)[0].failed
    assert failed.code == "provider_failed"
    assert fault in failed.message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "rate_limit_exceeded", "message": "slow down"}, "provider_rate_limited"),
        ({"code": "server_overloaded", "message": "busy"}, "provider_overloaded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_temporary_failure_keeps_its_code(
    tmp_path: Path, stream: bool, error: dict[str, str], code: str
) -> None:
    behave = (
        streams(last("failed", error=error)) if stream else replies(ended("failed", error=error))
    )
    assert asked(tmp_path, behave, stream=stream)[0].failed.code == code


def test_a_failure_after_some_text_has_the_usage_so_far(tmp_path: Path) -> None:
    answers, _ = asked(tmp_path, streams(*TEXT[:6]), stream=True)
    failed = answers.failed
    assert answers.text == "Hello"
    assert failed.estimated
    assert failed.completion_tokens == 2


def test_an_answer_of_another_model_is_not_given(tmp_path: Path) -> None:
    body = json.loads(json.dumps(ended(output=[message("Hello")])))
    body["model"] = "other-2"
    (answers, *_) = asked(tmp_path, replies(body), stream=False)
    assert (answers.failed.code, answers.text) == ("provider_differs", "")
