"""Gemini's wire shape: generateContent."""

from __future__ import annotations

from typing import Any

from registry.catalog.generation import ChatMessage, GenerationInputs, SamplingOptions
from registry.catalog.hosted import HostedDescription
from registry.catalog.inputs import Inputs, Options
from workers.egress.connections import ProviderFailed
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

_SENT = {
    "temperature": "temperature",
    "top_p": "topP",
    "stop": "stopSequences",
    "seed": "seed",
    "choices": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_SETTINGS = frozenset(_SENT) | {"json_schema", "tools", "images"}
_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
}


def call(description: HostedDescription, inputs: Inputs, options: Options, *, stream: bool) -> Call:
    """Return the call for a conversation. Raises RequestRefused."""
    conversation, settings = generation(inputs, options)
    used = used_settings(description, conversation, settings, _SETTINGS)
    system, turns = system_and_turns(conversation.messages or [])
    config: dict[str, Any] = {name: used[own] for own, name in _SENT.items() if own in used}
    if (limit := token_limit(description, settings)) is not None:
        config["maxOutputTokens"] = limit
    if "json_schema" in used:
        config |= {
            "responseMimeType": "application/json",
            "responseJsonSchema": used["json_schema"],
        }
    body: dict[str, Any] = {"contents": _contents(turns, conversation)}
    if system:
        body["systemInstruction"] = {"parts": [{"text": system}]}
    if "tools" in used:
        body |= _tools(conversation, settings)
    if config:
        body["generationConfig"] = config
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return Call(
        f"/models/{description.model}:{method}", body, choices=settings.choices, stream=stream
    )


def reader(description: HostedDescription, call: Call) -> ContentReader:
    """Return a reader for the answer to a call."""
    return ContentReader(State(choices=call.choices, most_tokens=description.context_tokens))


class ContentReader:
    """Reads candidates, whole or streamed; thoughts are skipped."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._calls = 0

    def event(self, data: bytes) -> list[Delta]:
        """Return the pieces in the data of one event. Raises ProviderFailed."""
        state = self.state
        deltas: list[Delta] = []
        try:
            event = parse(data, exact=b'"functionCall"' in data)
            if event.get("error"):
                raise stated_failure(event)
            state.names(event.get("modelVersion"))
            for candidate in event.get("candidates") or ():
                index = candidate.get("index", 0)
                for part in (candidate.get("content") or {}).get("parts") or ():
                    deltas += self._piece(index, part)
                if reason := candidate.get("finishReason"):
                    if reason not in _REASONS:
                        raise ProviderFailed(
                            f"The model ended without an answer: {str(reason)[:60]}."
                        )
                    deltas += state.end(index, _REASONS[reason])
            if (event.get("promptFeedback") or {}).get("blockReason") and not state.finish:
                for index in range(state.choices):
                    deltas += state.end(index, "content_filter")
            if usage := event.get("usageMetadata"):
                self._usage(usage)
        except MALFORMED as error:
            raise malformed(error) from error
        state.complete = len(state.finish) == state.choices
        return deltas

    def whole(self, body: bytes) -> list[Delta]:
        """Return the pieces of an answer that was not streamed. Raises ProviderFailed."""
        return self.event(body)

    def _piece(self, index: int, part: Any) -> list[Delta]:
        if part.get("thought"):
            return []
        if function := part.get("functionCall"):
            self._calls += 1
            arguments = exact_json(function.get("args") or {})
            return [self.state.tool(index, self._calls, None, function["name"], arguments)]
        return [self.state.text(index, part["text"])] if part.get("text") else []

    def _usage(self, usage: Any) -> None:
        answer = usage.get("candidatesTokenCount")
        thoughts = usage.get("thoughtsTokenCount") or 0
        prompt = usage.get("promptTokenCount")
        self.state.usage(
            prompt, None if answer is None and not thoughts else (answer or 0) + thoughts
        )


def _contents(turns: list[ChatMessage], inputs: GenerationInputs) -> list[dict[str, Any]]:
    """Return the turns with roles that alternate: results of functions are the user's."""
    images = iter(inputs.images)
    names: dict[str, str] = {}
    contents: list[dict[str, Any]] = []
    for turn in turns:
        names |= {each.id: each.name for each in turn.tool_calls}
        role = "model" if turn.role == "assistant" else "user"
        parts = _parts(turn, images, names)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    return contents


def _parts(turn: ChatMessage, images: Any, names: dict[str, str]) -> list[dict[str, Any]]:
    if turn.role == "tool":
        if (name := names.get(turn.tool_call_id or "")) is None:
            raise refused("a tool result without its call", "send the assistant's turn before it")
        if turn.images:
            raise refused("images in tool results", "send them in a user's turn")
        return [{"functionResponse": {"name": name, "response": {"output": turn.text}}}]
    parts: list[dict[str, Any]] = []
    if isinstance(turn.content, str):
        parts = [{"text": turn.content}] if turn.content else []
    else:
        for part in turn.content:
            if part.type == "text":
                parts.append({"text": part.text})
            else:
                content_type, data = image_data(next(images))
                parts.append({"inlineData": {"mimeType": content_type, "data": data}})
    return parts + [
        {"functionCall": {"name": each.name, "args": each.arguments}} for each in turn.tool_calls
    ]


def _tools(inputs: GenerationInputs, settings: SamplingOptions) -> dict[str, Any]:
    if any(tool.strict for tool in inputs.tools):
        raise refused("strict tools")
    if not settings.parallel_tool_calls:
        raise refused("parallel_tool_calls: false")
    functions = [
        {
            "name": tool.name,
            "description": tool.description,
            "parametersJsonSchema": tool.parameters,
        }
        for tool in inputs.tools
    ]
    body: dict[str, Any] = {"tools": [{"functionDeclarations": functions}]}
    if settings.tool_name is not None or settings.tool_choice == "required":
        config: dict[str, Any] = {"mode": "ANY"}
        if settings.tool_name is not None:
            config["allowedFunctionNames"] = [settings.tool_name]
        body["toolConfig"] = {"functionCallingConfig": config}
    return body
