"""Equivalence of the wire shapes: one conversation through each, whole and streamed."""

from __future__ import annotations

import base64
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
from tests.unit.workers.provider import Behavior, calling, event, replies, streams
from workers.engines.protocol import RequestRefused

SHAPES = ("openai", "anthropic", "gemini")
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 40
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LOOK = Tool(name="look", description="Look it up", parameters=SCHEMA)
PATHS = {
    ("openai", False): "/v1/chat/completions",
    ("openai", True): "/v1/chat/completions",
    ("anthropic", False): "/v1/messages",
    ("anthropic", True): "/v1/messages",
    ("gemini", False): "/v1beta/models/test-1:generateContent",
    ("gemini", True): "/v1beta/models/test-1:streamGenerateContent?alt=sse",
}


def answer(shape: str, *, stream: bool, text: str = "", call: Any = None) -> Behavior:
    """Return a provider that answers by a text, or by a call (name, arguments), with 9 + 5 tokens
    after a thought."""
    made = {"openai": _openai, "anthropic": _anthropic, "gemini": _gemini}[shape]
    return made(stream, text, call)


def _openai(stream: bool, text: str, call: Any) -> Behavior:
    finish = "tool_calls" if call else "stop"
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    tools: list[Any] = []
    if call:
        function = {"name": call[0], "arguments": json.dumps(call[1])}
        tools = [{"index": 0, "id": "c1", "type": "function", "function": function}]
    if not stream:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or None,
            "reasoning_content": "Hm.",
        }
        if tools:
            message["tool_calls"] = tools
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return replies({"model": "test-1", "choices": [choice], "usage": usage})

    def part(delta: Any, reason: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        return event({"model": "test-1", "choices": choices})

    events = [part({"role": "assistant", "content": "", "reasoning_content": "Hm."})]
    events += [part({"content": text[at : at + 3]}) for at in range(0, len(text), 3)]
    if tools:
        arguments = tools[0]["function"]["arguments"]
        tools[0]["function"]["arguments"] = ""
        events.append(part({"tool_calls": tools}))
        for at in range(0, len(arguments), 5):
            piece = {"index": 0, "function": {"arguments": arguments[at : at + 5]}}
            events.append(part({"tool_calls": [piece]}))
    end = event({"model": "test-1", "choices": [], "usage": usage})
    return streams(*events, part({}, finish), end, event("[DONE]"))


def _anthropic(stream: bool, text: str, call: Any) -> Behavior:
    finish = "tool_use" if call else "end_turn"
    block: dict[str, Any] = {"type": "text", "text": text}
    if call:
        block = {"type": "tool_use", "id": "c1", "name": call[0], "input": call[1]}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    if not stream:
        return replies(
            {
                "type": "message",
                "model": "test-1",
                "content": [thought, block],
                "stop_reason": finish,
                "usage": {
                    "input_tokens": 4,
                    "cache_read_input_tokens": 3,
                    "cache_creation_input_tokens": 2,
                    "output_tokens": 5,
                },
            }
        )
    usage = {"input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 1}
    begin = {"type": "message_start", "message": {"model": "test-1", "usage": usage}}
    events = [event(begin, "message_start"), event({"type": "ping"}, "ping")]
    events.append(event({"type": "content_block_start", "index": 0, "content_block": thought}))
    thinking = {"type": "thinking_delta", "thinking": "Hm."}
    events.append(event({"type": "content_block_delta", "index": 0, "delta": thinking}))
    empty = {**block, "input": {}} if call else {"type": "text", "text": ""}
    events.append(event({"type": "content_block_start", "index": 1, "content_block": empty}))
    pieces = json.dumps(call[1]) if call and call[1] else text
    for at in range(0, len(pieces), 5):
        delta = (
            {"type": "input_json_delta", "partial_json": pieces[at : at + 5]}
            if call
            else {"type": "text_delta", "text": pieces[at : at + 5]}
        )
        events.append(event({"type": "content_block_delta", "index": 1, "delta": delta}))
    events.append(event({"type": "content_block_stop", "index": 1}))
    end = {"type": "message_delta", "delta": {"stop_reason": finish}, "usage": {"output_tokens": 5}}
    return streams(*events, event(end), event({"type": "message_stop"}, "message_stop"))


def _gemini(stream: bool, text: str, call: Any) -> Behavior:
    usage = {"promptTokenCount": 9, "candidatesTokenCount": 3, "thoughtsTokenCount": 2}
    thought = {"text": "Hm.", "thought": True}
    part: dict[str, Any] = {"text": text}
    if call:
        part = {"functionCall": {"name": call[0], "args": call[1]}}

    def answer_(parts: Any, **more: Any) -> dict[str, Any]:
        candidate = {"index": 0, "content": {"role": "model", "parts": parts}, **more}
        return {"modelVersion": "test-1", "candidates": [candidate], "usageMetadata": usage}

    if not stream:
        return replies(answer_([thought, part], finishReason="STOP"))
    pieces = [{"text": text[at : at + 4]} for at in range(0, len(text), 4)] or [part]
    return streams(
        event(answer_([thought])),
        *(event(answer_([each])) for each in pieces),
        event(answer_([], finishReason="STOP")),
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_text_is_the_same_in_every_shape(tmp_path: Path, shape: str, stream: bool) -> None:
    behave = answer(shape, stream=stream, text="Paris, ça va.")
    with calling(tmp_path, behave, shape) as (caller, provider):
        answers = caller.ask("Which city?", stream=stream)
        done = answers.done
        assert answers.text == "Paris, ça va."
        assert done.finish_reason == "stop"
        assert (done.prompt_tokens, done.completion_tokens) == (9, 5)
        assert not done.estimated
        assert len(answers.deltas) > 1 or not stream
        (received,) = provider.received
        assert received.path == PATHS[shape, stream]


@pytest.mark.parametrize("arguments", [{"city": "Paris", "big": 2**70}, {}])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_tool_call_is_the_same_in_every_shape(
    tmp_path: Path, shape: str, stream: bool, arguments: dict[str, Any]
) -> None:
    behave = answer(shape, stream=stream, call=("look", arguments))
    inputs = GenerationInputs(messages=[ChatMessage(role="user", content="Look")], tools=[LOOK])
    with calling(tmp_path, behave, shape) as (caller, _):
        answers = caller.ask(inputs, stream=stream)
        assert answers.done.finish_reason == "tool_calls"
        ((name, text),) = answers.calls
        assert (name, json.loads(text)) == ("look", arguments)


TURNS = [
    ChatMessage(role="system", content="Be short."),
    ChatMessage(role="user", content=[TextPart(type="text", text="See"), ImagePart(type="image")]),
    ChatMessage(
        role="assistant",
        content="",
        tool_calls=[ToolCall(id="c1", name="look", arguments={"city": "Paris"})],
    ),
    ChatMessage(role="tool", tool_call_id="c1", content="Sunny"),
    ChatMessage(role="user", content="And?"),
]
CONVERSATION = GenerationInputs(messages=TURNS, tools=[LOOK], images=[BytesIO(PNG)])
LATE_SYSTEM = GenerationInputs(
    messages=[
        ChatMessage(role="user", content="Hi"),
        ChatMessage(role="system", content="Be short."),
    ]
)
IMAGE = base64.b64encode(PNG).decode()


def sent(folder: Path, shape: str, inputs: Any, options: Any = None) -> Any:
    with calling(folder, answer(shape, stream=False, text="Hi"), shape) as (caller, provider):
        assert caller.ask(inputs, options, stream=False).done
        return provider.received[0].json


def test_a_conversation_with_tools_and_images_in_openais_shape(tmp_path: Path) -> None:
    body = sent(tmp_path, "openai", CONVERSATION)
    system, user, assistant, tool, _ = body["messages"]
    assert system == {"role": "system", "content": "Be short."}
    assert user["content"] == [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
    ]
    (call,) = assistant["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert tool == {"role": "tool", "content": "Sunny", "tool_call_id": call["id"]}
    assert body["tools"][0]["function"]["parameters"] == SCHEMA


def test_a_conversation_with_tools_and_images_in_anthropics_shape(tmp_path: Path) -> None:
    body = sent(tmp_path, "anthropic", CONVERSATION)
    assert body["system"] == "Be short."
    user, assistant, results = body["messages"]
    assert user["content"][1]["source"] == {
        "type": "base64",
        "media_type": "image/png",
        "data": IMAGE,
    }
    assert assistant["content"] == [
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"city": "Paris"}}
    ]
    assert [each["type"] for each in results["content"]] == ["tool_result", "text"]
    assert body["tools"] == [{"name": "look", "input_schema": SCHEMA, "description": "Look it up"}]
    assert body["max_tokens"] == 1_000


def test_a_conversation_with_tools_and_images_in_geminis_shape(tmp_path: Path) -> None:
    body = sent(tmp_path, "gemini", CONVERSATION)
    assert body["systemInstruction"] == {"parts": [{"text": "Be short."}]}
    user, model, results = body["contents"]
    assert user["parts"][1] == {"inlineData": {"mimeType": "image/png", "data": IMAGE}}
    assert model["parts"] == [{"functionCall": {"name": "look", "args": {"city": "Paris"}}}]
    assert results["parts"][0] == {
        "functionResponse": {"name": "look", "response": {"output": "Sunny"}}
    }
    (tool,) = body["tools"][0]["functionDeclarations"]
    assert tool["parametersJsonSchema"] == SCHEMA


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_is_read_again_for_the_next_target(tmp_path: Path, shape: str) -> None:
    for _ in range(2):
        assert IMAGE in json.dumps(sent(tmp_path, shape, CONVERSATION))


TOLD = SamplingOptions(
    max_tokens=77,
    temperature=0.5,
    top_p=0.25,
    stop=["END"],
    json_schema=SCHEMA,
    stated=["max_tokens", "temperature", "top_p", "stop"],
)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        (
            "openai",
            {
                "max_tokens": 77,
                "temperature": 0.5,
                "top_p": 0.25,
                "stop": ["END"],
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
                },
            },
        ),
        (
            "anthropic",
            {
                "max_tokens": 77,
                "temperature": 0.5,
                "top_p": 0.25,
                "stop_sequences": ["END"],
                "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
            },
        ),
        (
            "gemini",
            {
                "generationConfig": {
                    "maxOutputTokens": 77,
                    "temperature": 0.5,
                    "topP": 0.25,
                    "stopSequences": ["END"],
                    "responseMimeType": "application/json",
                    "responseJsonSchema": SCHEMA,
                }
            },
        ),
    ],
)
def test_settings_are_told_by_the_names_of_the_shape(
    tmp_path: Path, shape: str, settings: dict[str, Any]
) -> None:
    body = sent(tmp_path, shape, "Hello", TOLD)
    assert {name: body.get(name) for name in settings} == settings


@pytest.mark.parametrize("shape", SHAPES)
def test_defaults_are_not_told(tmp_path: Path, shape: str) -> None:
    body = sent(tmp_path, shape, "Hello")
    assert not {"temperature", "top_p", "stop", "n", "seed", "stream"} & body.keys()
    assert "temperature" not in body.get("generationConfig", {})


def test_the_newer_name_of_the_token_limit_is_used_if_it_is_permitted(tmp_path: Path) -> None:
    behave = answer("openai", stream=False, text="Hi")
    with calling(tmp_path, behave, parameters=["max_completion_tokens"]) as (caller, provider):
        assert caller.ask("Hello", SamplingOptions(max_tokens=5), stream=False).done
        body = provider.received[0].json
        assert (body["max_completion_tokens"], body.get("max_tokens")) == (5, None)


OPTIONS: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "stop": ["END"],
    "seed": 7,
    "choices": 2,
    "logprobs": 1,
    "logit_bias": {"5": 1.0},
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "json_schema": SCHEMA,
}
CANNOT = {
    "openai": set[str](),
    "anthropic": {
        "seed", "choices", "logprobs", "logit_bias", "presence_penalty", "frequency_penalty",
    },
    "gemini": {"logprobs", "logit_bias"},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_setting_is_told_or_refused_by_name(tmp_path: Path, shape: str, name: str) -> None:
    options = SamplingOptions(**{name: OPTIONS[name]})
    if name in CANNOT[shape]:
        with calling(tmp_path, answer(shape, stream=False, text="Hi"), shape) as (caller, provider):
            with pytest.raises(RequestRefused, match=name) as refusal:
                caller.ask("Hello", options, stream=False)
            assert (refusal.value.code, refusal.value.status) == ("unsupported_parameter", 400)
            assert provider.received == []
    elif name != "choices":
        assert sent(tmp_path, shape, "Hello", options) != sent(tmp_path, shape, "Hello")


@pytest.mark.parametrize("name", [*OPTIONS, "max_tokens", "tools", "images"])
def test_a_setting_that_the_description_does_not_permit_is_refused_by_name(
    tmp_path: Path, name: str
) -> None:
    options, inputs = SamplingOptions(), GenerationInputs(messages=TURNS[:1])
    if name == "max_tokens":
        options = SamplingOptions(max_tokens=5, stated=["max_tokens"])
    elif name == "tools":
        inputs = GenerationInputs(messages=inputs.messages, tools=[LOOK])
    elif name == "images":
        inputs = GenerationInputs(messages=TURNS[1:2], images=[BytesIO(PNG)])
    else:
        options = SamplingOptions(**{name: OPTIONS[name]})
    behave = answer("openai", stream=False, text="Hi")
    with (
        calling(tmp_path, behave, parameters=[]) as (caller, _),
        pytest.raises(RequestRefused, match=f"does not permit {name}"),
    ):
        caller.ask(inputs, options, stream=False)


SEEN_BY_A_TOOL = GenerationInputs(
    messages=[
        ChatMessage(
            role="assistant",
            content="",
            tool_calls=[ToolCall(id="c1", name="look", arguments={})],
        ),
        ChatMessage(role="tool", tool_call_id="c1", content=[ImagePart(type="image")]),
    ],
    images=[BytesIO(PNG)],
)


@pytest.mark.parametrize(
    ("shape", "inputs", "options", "word"),
    [
        ("openai", GenerationInputs(prompt="Once"), SamplingOptions(), "prompt"),
        ("openai", "Hello", SamplingOptions(best_of=3), "best_of"),
        ("openai", "Hello", SamplingOptions(reference="x"), "reference"),
        ("openai", "Hello", SamplingOptions(max_tokens=0), "max_tokens"),
        ("openai", "Hello", SamplingOptions(max_tokens=2_000, stated=["max_tokens"]), "2000"),
        ("anthropic", "Hello", SamplingOptions(temperature=1.5), "temperature"),
        (
            "gemini",
            GenerationInputs(messages=TURNS[:1], tools=[LOOK]),
            SamplingOptions(parallel_tool_calls=False),
            "parallel_tool_calls",
        ),
        (
            "anthropic",
            LATE_SYSTEM,
            SamplingOptions(),
            "system message",
        ),
        (
            "gemini",
            GenerationInputs(messages=[ChatMessage(role="tool", tool_call_id="x", content="y")]),
            SamplingOptions(),
            "tool result",
        ),
        ("gemini", SEEN_BY_A_TOOL, SamplingOptions(), "images in tool results"),
    ],
)
def test_what_a_shape_cannot_express_is_refused_by_name(
    tmp_path: Path, shape: str, inputs: Any, options: SamplingOptions, word: str
) -> None:
    with (
        calling(tmp_path, answer(shape, stream=False, text="Hi"), shape) as (caller, _),
        pytest.raises(RequestRefused, match=word),
    ):
        caller.ask(inputs, options, stream=False)


@pytest.mark.parametrize(
    ("shape", "wanted", "choice"),
    [
        ("openai", {"tool_choice": "required"}, "required"),
        ("openai", {"tool_name": "look"}, {"type": "function", "function": {"name": "look"}}),
        ("anthropic", {"tool_choice": "required"}, {"type": "any"}),
        ("anthropic", {"tool_name": "look"}, {"type": "tool", "name": "look"}),
        (
            "anthropic",
            {"parallel_tool_calls": False},
            {"type": "auto", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_the_choice_of_a_tool_is_told(
    tmp_path: Path, shape: str, wanted: dict[str, Any], choice: Any
) -> None:
    message = ChatMessage(role="user", content="Look")
    inputs = GenerationInputs(messages=[message], tools=[LOOK])
    assert sent(tmp_path, shape, inputs, SamplingOptions(**wanted))["tool_choice"] == choice


def test_several_choices_end_one_by_one(tmp_path: Path) -> None:
    def part(index: int, text: str, finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
        return event({"choices": [choice]})

    behave = streams(
        part(0, "a"), part(1, "b"), part(1, "B", "length"), part(0, "A", "stop"), event("[DONE]")
    )
    with calling(tmp_path, behave) as (caller, provider):
        answers = caller.ask("Hello", SamplingOptions(choices=2))
        assert answers.done.finish_reason == "stop"
        texts = {
            index: "".join(each.text for each in answers.deltas if each.index == index)
            for index in (0, 1)
        }
        assert texts == {0: "aA", 1: "bB"}
        ends = {each.index: each.finish for each in answers.deltas if each.finish}
        assert ends == {0: "stop", 1: "length"}
        assert provider.received[0].json["n"] == 2


def test_log_probabilities_are_passed_on(tmp_path: Path) -> None:
    token = {"token": "é", "bytes": [195, 169], "logprob": -0.5}
    scored = {**token, "top_logprobs": [token, {"token": "x", "logprob": -2.0}]}
    choice = {
        "index": 0,
        "message": {"content": "é"},
        "logprobs": {"content": [scored]},
        "finish_reason": "stop",
    }
    with calling(tmp_path, replies({"choices": [choice]})) as (caller, _):
        answers = caller.ask("Hello", SamplingOptions(logprobs=2), stream=False)
        assert answers.done
        (delta,) = answers.deltas
        assert delta.scores == [("Ã©", -0.5, [("Ã©", -0.5), ("x", -2.0)])]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"bytes": 10**12}, "bytes of a token are not a list"),
        ({"bytes": [256]}, "malformed"),
        ({"logprob": "inf"}, "not a number"),
        ({"top_logprobs": [{"token": "x", "logprob": None}]}, "not a number"),
    ],
)
def test_scores_that_cannot_be_read_are_a_failure(
    tmp_path: Path, change: dict[str, Any], fault: str
) -> None:
    scored = {"token": "a", "logprob": -0.5, **change}
    choice = {"message": {"content": "a"}, "logprobs": {"content": [scored]}}
    with calling(tmp_path, replies({"choices": [choice]})) as (caller, _):
        failed = caller.ask("Hello", SamplingOptions(logprobs=2), stream=False).failed
    assert failed.code == "provider_failed"
    assert fault in failed.message


def test_the_stop_text_is_named_where_the_provider_names_it(tmp_path: Path) -> None:
    body = {
        "content": [{"type": "text", "text": "a"}],
        "stop_reason": "stop_sequence",
        "stop_sequence": "END",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    options = SamplingOptions(stop=["END"], name_stop=True)
    with calling(tmp_path, replies(body), "anthropic") as (caller, _):
        assert caller.ask("Hello", options, stream=False).done.stop == "END"


def test_a_refusal_of_the_model_is_told(tmp_path: Path) -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {}}
    with calling(tmp_path, replies(blocked), "gemini") as (caller, _):
        assert caller.ask("Hello", stream=False).done.finish_reason == "content_filter"
