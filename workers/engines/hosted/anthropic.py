"""Anthropic's wire shape: messages."""

from __future__ import annotations

from typing import Any

from registry.catalog.generation import ChatMessage, GenerationInputs, SamplingOptions, Tool
from registry.catalog.hosted import HostedDescription
from registry.catalog.inputs import Inputs, Options
from workers.engines.hosted.failures import MALFORMED, malformed, stated_failure
from workers.engines.hosted.shapes import (
    Call,
    State,
    exact_json,
    generation,
    image_data,
    parse,
    refused,
    system_and_turns,
    token_limit,
    used_settings,
)
from workers.wire import Delta

VERSION = "2023-06-01"
_SETTINGS = frozenset({"temperature", "top_p", "stop", "json_schema", "tools", "images"})
_NAMES = {"temperature": "temperature", "top_p": "top_p", "stop": "stop_sequences"}
_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


def call(description: HostedDescription, inputs: Inputs, options: Options, *, stream: bool) -> Call:
    """Return the call for a conversation. Raises RequestRefused."""
    conversation, settings = generation(inputs, options)
    used = used_settings(description, conversation, settings, _SETTINGS)
    if settings.temperature > 1:
        raise refused(f"temperature {settings.temperature:g}", "use at most 1")
    system, turns = system_and_turns(conversation.messages or [])
    body: dict[str, Any] = {
        "model": description.model,
        # Required by this shape, even if the caller states none.
        "max_tokens": token_limit(description, settings) or description.max_tokens,
        "messages": _messages(turns, conversation),
    }
    if system:
        body["system"] = system
    body |= {name: used[own] for own, name in _NAMES.items() if own in used}
    if "json_schema" in used:
        body["output_config"] = {"format": {"type": "json_schema", "schema": used["json_schema"]}}
    if "tools" in used:
        body["tools"] = [_tool(tool) for tool in conversation.tools]
        if (choice := _tool_choice(settings)) is not None:
            body["tool_choice"] = choice
    if stream:
        body["stream"] = True
    return Call("/messages", body, {"anthropic-version": VERSION}, stream=stream)


def reader(description: HostedDescription, call: Call) -> MessagesReader:
    """Return a reader for the answer to a call."""
    return MessagesReader(State(most_tokens=description.context_tokens))


class MessagesReader:
    """Reads messages, whole or streamed; thinking is skipped."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._input: int | None = None
        # Blocks of tool calls that have no arguments yet.
        self._empty: set[int] = set()

    def event(self, data: bytes) -> list[Delta]:
        """Return the pieces in the data of one event. Raises ProviderFailed."""
        try:
            event = parse(data)
            match event.get("type"):
                case "content_block_delta":
                    return self._delta(event["index"], event["delta"])
                case "content_block_start":
                    number, block = event["index"], event["content_block"]
                    if block.get("type") == "tool_use" and not block.get("input"):
                        self._empty.add(number)
                        return [self.state.tool(0, number, None, block["name"], "")]
                    return self._block(number, block)
                case "content_block_stop" if event["index"] in self._empty:
                    return [self.state.tool(0, event["index"], None, "", "{}")]
                case "message_start":
                    self.state.names(event["message"].get("model"))
                    # Its output tokens are those of the first piece.
                    self._usage({**(event["message"].get("usage") or {}), "output_tokens": None})
                case "message_delta":
                    self._usage(event.get("usage"))
                    return self._end(event.get("delta") or {})
                case "message_stop":
                    self.state.complete, self.state.ended = bool(self.state.finish), True
                case "error":
                    raise stated_failure(event)
        except MALFORMED as error:
            raise malformed(error) from error
        return []

    def whole(self, body: bytes) -> list[Delta]:
        """Return the pieces of an answer that was not streamed. Raises ProviderFailed."""
        deltas: list[Delta] = []
        try:
            answer = parse(body, exact=b'"tool_use"' in body)
            if answer.get("type") == "error" or answer.get("error"):
                raise stated_failure(answer)
            self.state.names(answer.get("model"))
            for number, block in enumerate(answer["content"]):
                deltas += self._block(number, block)
            self._usage(answer.get("usage"))
            deltas += self._end(answer)
        except MALFORMED as error:
            raise malformed(error) from error
        self.state.complete = bool(self.state.finish)
        return deltas

    def _block(self, number: int, block: Any) -> list[Delta]:
        """Return the pieces of a block."""
        match block.get("type"):
            case "text":
                return [self.state.text(0, block["text"])] if block.get("text") else []
            case "tool_use":
                arguments = exact_json(block["input"])
                return [self.state.tool(0, number, None, block["name"], arguments)]
        return []

    def _delta(self, number: int, delta: Any) -> list[Delta]:
        match delta.get("type"):
            case "text_delta":
                return [self.state.text(0, delta["text"])]
            case "input_json_delta" if delta["partial_json"]:
                self._empty.discard(number)
                return [self.state.tool(0, number, None, "", delta["partial_json"])]
        return []

    def _end(self, part: Any) -> list[Delta]:
        reason = part.get("stop_reason")
        if not reason:
            return []
        if reason not in _REASONS:
            raise ValueError(f"it ended by {str(reason)[:40]!r}")
        if reason == "stop_sequence":
            self.state.stop = str(part.get("stop_sequence") or "")[:256]
        return self.state.end(0, _REASONS[reason])

    def _usage(self, usage: Any) -> None:
        if not usage:
            return
        if usage.get("input_tokens") is not None:
            self._input = sum(
                usage.get(name) or 0
                for name in (
                    "input_tokens",
                    "cache_creation_input_tokens",
                    "cache_read_input_tokens",
                )
            )
        self.state.usage(self._input, usage.get("output_tokens"))


def _messages(turns: list[ChatMessage], inputs: GenerationInputs) -> list[dict[str, Any]]:
    """Return the turns with roles that alternate: results of tools are parts of the user's turn."""
    images = iter(inputs.images)
    messages: list[dict[str, Any]] = []
    for turn in turns:
        role = "assistant" if turn.role == "assistant" else "user"
        blocks = _blocks(turn, images)
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += blocks
        elif blocks:
            messages.append({"role": role, "content": blocks})
    return messages


def _blocks(turn: ChatMessage, images: Any) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    parts = turn.content
    if isinstance(parts, str):
        blocks = [{"type": "text", "text": parts}] if parts else []
    else:
        for part in parts:
            if part.type == "text":
                blocks.append({"type": "text", "text": part.text})
            else:
                content_type, data = image_data(next(images))
                source = {"type": "base64", "media_type": content_type, "data": data}
                blocks.append({"type": "image", "source": source})
    if turn.role == "tool":
        return [{"type": "tool_result", "tool_use_id": turn.tool_call_id or "", "content": blocks}]
    return blocks + [
        {"type": "tool_use", "id": each.id, "name": each.name, "input": each.arguments}
        for each in turn.tool_calls
    ]


def _tool(tool: Tool) -> dict[str, Any]:
    body: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description:
        body["description"] = tool.description
    return body | ({"strict": True} if tool.strict else {})


def _tool_choice(settings: SamplingOptions) -> dict[str, Any] | None:
    choice: dict[str, Any] = {"type": "auto"}
    if settings.tool_name is not None:
        choice = {"type": "tool", "name": settings.tool_name}
    elif settings.tool_choice == "required":
        choice = {"type": "any"}
    if not settings.parallel_tool_calls:
        return choice | {"disable_parallel_tool_use": True}
    return None if choice["type"] == "auto" else choice
