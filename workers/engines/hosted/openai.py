"""OpenAI's wire shape: chat completions."""

from __future__ import annotations

from typing import Any

from registry.catalog.endpoints import TokenScore
from registry.catalog.generation import ChatMessage, GenerationInputs, Tool
from registry.catalog.hosted import OPERATIONS, HostedDescription, Operation
from registry.catalog.inputs import Inputs, Options
from workers.engines.hosted.failures import MALFORMED, malformed, stated_failure
from workers.engines.hosted.shapes import (
    Call,
    State,
    exact_json,
    finite,
    generation,
    image_data,
    parse,
    token_limit,
    used_settings,
)
from workers.wire import Delta

_SETTINGS = OPERATIONS[Operation.CHAT].parameters
_SENT = ("temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty")
_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_LEAST_SCORE = -9999.0


def call(description: HostedDescription, inputs: Inputs, options: Options, *, stream: bool) -> Call:
    """Return the call for a conversation. Raises RequestRefused."""
    conversation, settings = generation(inputs, options)
    used = used_settings(description, conversation, settings, _SETTINGS)
    body: dict[str, Any] = {
        "model": description.model,
        "messages": _messages(conversation),
    }
    body |= {name: used[name] for name in _SENT if name in used}
    if (limit := token_limit(description, settings)) is not None:
        new = "max_completion_tokens" in description.parameters
        body["max_completion_tokens" if new else "max_tokens"] = limit
    if "choices" in used:
        body["n"] = used["choices"]
    if "logit_bias" in used:
        body["logit_bias"] = used["logit_bias"]
    if "logprobs" in used:
        body |= {"logprobs": True} | (
            {"top_logprobs": used["logprobs"]} if used["logprobs"] else {}
        )
    if "json_schema" in used:
        schema = {"name": "answer", "schema": used["json_schema"], "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if "tools" in used:
        body["tools"] = [_tool(tool) for tool in conversation.tools]
        if settings.tool_name is not None:
            function = {"name": settings.tool_name}
            body["tool_choice"] = {"type": "function", "function": function}
        elif settings.tool_choice == "required":
            body["tool_choice"] = "required"
        if not settings.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return Call("/chat/completions", body, choices=settings.choices, stream=stream)


def reader(description: HostedDescription, call: Call) -> ChatReader:
    """Return a reader for the answer to a call."""
    return ChatReader(State(choices=call.choices, most_tokens=description.context_tokens))


class ChatReader:
    """Reads chat completions, whole or streamed; reasoning is skipped."""

    def __init__(self, state: State) -> None:
        self.state = state

    def event(self, data: bytes) -> list[Delta]:
        """Return the pieces in the data of one event. Raises ProviderFailed."""
        state = self.state
        if data == b"[DONE]":
            state.complete, state.ended = len(state.finish) == state.choices, True
            return []
        deltas: list[Delta] = []
        try:
            event = parse(data)
            if event.get("error"):
                raise stated_failure(event)
            state.names(event.get("model"), event.get("system_fingerprint"))
            for choice in event.get("choices") or ():
                index = choice.get("index", 0)
                deltas += self._pieces(index, choice.get("delta") or {}, choice.get("logprobs"))
                if reason := choice.get("finish_reason"):
                    deltas += state.end(index, _REASONS.get(reason, "stop"))
            if usage := event.get("usage"):
                state.usage(usage.get("prompt_tokens"), usage.get("completion_tokens"))
        except MALFORMED as error:
            raise malformed(error) from error
        return deltas

    def whole(self, body: bytes) -> list[Delta]:
        """Return the pieces of an answer that was not streamed. Raises ProviderFailed."""
        state = self.state
        deltas: list[Delta] = []
        try:
            answer = parse(body)
            if answer.get("error"):
                raise stated_failure(answer)
            state.names(answer.get("model"), answer.get("system_fingerprint"))
            for choice in answer["choices"]:
                index = choice.get("index", 0)
                deltas += self._pieces(index, choice["message"], choice.get("logprobs"))
                deltas += state.end(index, _REASONS.get(choice.get("finish_reason"), "stop"))
            usage = answer.get("usage") or {}
            state.usage(usage.get("prompt_tokens"), usage.get("completion_tokens"))
        except MALFORMED as error:
            raise malformed(error) from error
        state.complete = len(state.finish) == state.choices
        return deltas

    def _pieces(self, index: int, part: Any, logprobs: Any) -> list[Delta]:
        """Return the pieces of a message, or of the next part of one."""
        deltas = []
        text = part.get("content") or part.get("refusal") or ""
        if isinstance(text, list):
            text = "".join(each["text"] for each in text if each.get("type") == "text")
        scores = token_scores(logprobs)
        if text or scores:
            deltas.append(self.state.text(index, text, scores))
        for number, tool in enumerate(part.get("tool_calls") or ()):
            function = tool.get("function") or {}
            deltas.append(
                self.state.tool(
                    index,
                    tool.get("index", number),
                    tool.get("id"),
                    function.get("name") or "",
                    function.get("arguments") or "",
                )
            )
        return deltas


def _messages(inputs: GenerationInputs) -> list[dict[str, Any]]:
    images = iter(inputs.images)
    return [_message(message, images) for message in inputs.messages or ()]


def _message(message: ChatMessage, images: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if not isinstance(message.content, str):
        body["content"] = [
            {"type": "text", "text": part.text}
            if part.type == "text"
            else {"type": "image_url", "image_url": {"url": data_url(next(images))}}
            for part in message.content
        ]
    if message.tool_calls:
        body["content"] = body["content"] or None
        body["tool_calls"] = [
            {
                "id": each.id,
                "type": "function",
                "function": {
                    "name": each.name,
                    "arguments": exact_json(each.arguments),
                },
            }
            for each in message.tool_calls
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    return body


def data_url(image: Any) -> str:
    """Return an image as a `data:` URL."""
    content_type, data = image_data(image)
    return f"data:{content_type};base64,{data}"


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function | ({"strict": True} if tool.strict else {})}


def token_scores(logprobs: Any) -> list[TokenScore] | None:
    """Return the log probabilities that an answer states for its tokens."""
    content = logprobs.get("content") if logprobs else None
    if not content:
        return None
    return [
        (
            _token(each),
            max(_LEAST_SCORE, finite(each["logprob"])),
            [
                (_token(other), max(_LEAST_SCORE, finite(other["logprob"])))
                for other in each.get("top_logprobs") or ()
            ],
        )
        for each in content
    ]


def _token(each: Any) -> str:
    """Return a token's bytes as Latin-1."""
    data = each.get("bytes")
    if data is None:
        return str(each["token"].encode(), "latin-1")
    # `bytes` of a number would be that many zeros.
    if not isinstance(data, list):
        raise TypeError("the bytes of a token are not a list")
    return str(bytes(data), "latin-1")
