"""OpenAI's wire shape: responses, without state at the provider (`store: false`)."""

from __future__ import annotations

from typing import Any

from registry.catalog.generation import ChatMessage, GenerationInputs, SamplingOptions, Tool
from registry.catalog.hosted import OPERATIONS, HostedDescription, Operation
from registry.catalog.inputs import Inputs, Options
from workers.engines.hosted.failures import MALFORMED, malformed, stated_failure
from workers.engines.hosted.openai import data_url, token_scores
from workers.engines.hosted.shapes import (
    Call,
    State,
    exact_json,
    generation,
    parse,
    refused,
    token_limit,
    used_settings,
)
from workers.wire import Delta

_SETTINGS = OPERATIONS[Operation.RESPONSES].parameters
_SENT = ("temperature", "top_p")
_ROLES = frozenset({"system", "developer", "user", "assistant"})
_INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}


def call(description: HostedDescription, inputs: Inputs, options: Options, *, stream: bool) -> Call:
    """Return the call for a conversation. Raises RequestRefused."""
    conversation, settings = generation(inputs, options)
    used = used_settings(description, conversation, settings, _SETTINGS)
    body: dict[str, Any] = {
        "model": description.model,
        "input": _items(conversation),
        "store": False,
    }
    body |= {name: used[name] for name in _SENT if name in used}
    if (limit := token_limit(description, settings)) is not None:
        body["max_output_tokens"] = limit
    if "logprobs" in used:
        body["include"] = ["message.output_text.logprobs"]
        if used["logprobs"]:
            body["top_logprobs"] = used["logprobs"]
    if "json_schema" in used:
        schema = {"name": "answer", "schema": used["json_schema"], "strict": True}
        body["text"] = {"format": {"type": "json_schema", **schema}}
    if "tools" in used:
        body["tools"] = [_tool(tool) for tool in conversation.tools]
        body |= _tool_choice(settings)
    if stream:
        body["stream"] = True
    return Call("/responses", body, stream=stream)


def reader(description: HostedDescription, call: Call) -> ResponsesReader:
    """Return a reader for the answer to a call."""
    return ResponsesReader(State(most_tokens=description.context_tokens))


class ResponsesReader:
    """Reads responses, whole or streamed; reasoning is skipped."""

    def __init__(self, state: State) -> None:
        self.state = state
        # Tool calls by the places of their items, and whether their arguments have begun.
        self._calls: dict[Any, bool] = {}
        # Texts that have begun: places of their items, and in these.
        self._texts: set[tuple[Any, Any]] = set()

    def event(self, data: bytes) -> list[Delta]:
        """Return the pieces in the data of one event. Raises ProviderFailed."""
        if data == b"[DONE]":
            return []
        try:
            event = parse(data)
            match event.get("type"):
                case "response.output_text.delta" | "response.refusal.delta":
                    return self._text(event, event["delta"])
                case "response.output_text.done" if _text_place(event) not in self._texts:
                    return self._text(event, event["text"])
                case "response.refusal.done" if _text_place(event) not in self._texts:
                    return self._text(event, event["refusal"])
                case "response.output_item.added" | "response.output_item.done":
                    done = event["type"].endswith("done")
                    return self._call(_place(event), event["item"], done=done)
                case "response.function_call_arguments.delta":
                    return self._arguments(_place(event), event["delta"])
                case "response.function_call_arguments.done":
                    if not self._calls[_place(event)]:
                        return self._arguments(_place(event), event["arguments"])
                case "response.created":
                    self.state.names(event["response"].get("model"))
                case "response.completed" | "response.incomplete" | "response.failed":
                    self.state.ended = True
                    return self._end(event["response"])
                case "error":
                    raise stated_failure({"error": event.get("error") or event})
        except MALFORMED as error:
            raise malformed(error) from error
        return []

    def whole(self, body: bytes) -> list[Delta]:
        """Return the pieces of an answer that was not streamed. Raises ProviderFailed."""
        deltas: list[Delta] = []
        try:
            answer = parse(body)
            for index, item in enumerate(answer.get("output") or ()):
                if item.get("type") == "message":
                    for part in item["content"]:
                        deltas += self._part(part)
                else:
                    deltas += self._call(index, item, done=True)
            deltas += self._end(answer)
        except MALFORMED as error:
            raise malformed(error) from error
        return deltas

    def _part(self, part: Any) -> list[Delta]:
        text = part["refusal"] if part["type"] == "refusal" else part["text"]
        scores = token_scores({"content": part.get("logprobs")})
        return [self.state.text(0, text, scores)] if text or scores else []

    def _text(self, event: Any, text: Any) -> list[Delta]:
        self._texts.add(_text_place(event))
        scores = token_scores({"content": event.get("logprobs")})
        return [self.state.text(0, text, scores)] if text or scores else []

    def _call(self, place: Any, item: Any, *, done: bool) -> list[Delta]:
        """Return the pieces of a tool call that begins, or ends without its earlier pieces."""
        if item.get("type") != "function_call":
            return []
        deltas: list[Delta] = []
        if place not in self._calls:
            self._calls[place] = False
            deltas.append(self.state.tool(0, place, item.get("call_id"), item["name"], ""))
        if done and not self._calls[place]:
            deltas += self._arguments(place, item["arguments"])
        return deltas

    def _arguments(self, place: Any, arguments: Any) -> list[Delta]:
        if place not in self._calls:
            raise ValueError("arguments belong to no tool call")
        self._calls[place] = True
        return [self.state.tool(0, place, None, "", arguments)]

    def _end(self, answer: Any) -> list[Delta]:
        state = self.state
        if answer.get("error"):
            raise stated_failure(answer)
        state.names(answer.get("model"))
        usage = answer.get("usage") or {}
        state.usage(usage.get("input_tokens"), usage.get("output_tokens"))
        match answer["status"]:
            case "completed":
                reason = "stop"
            case "incomplete":
                reason = _INCOMPLETE[answer["incomplete_details"]["reason"]]
            case other:
                raise ValueError(f"it ended as {str(other)[:40]!r}")
        state.complete = True
        return state.end(0, reason)


def _place(event: Any) -> Any:
    """Return the output item that an event belongs to: its index or, without one, its ID."""
    if (place := event.get("output_index")) is not None:
        return place
    item = event.get("item") or {}
    return event.get("item_id") or item.get("id") or item["call_id"]


def _text_place(event: Any) -> tuple[Any, Any]:
    return _place(event), event.get("content_index", 0)


def _items(inputs: GenerationInputs) -> list[dict[str, Any]]:
    """Return the turns as items: tool calls and their results are items of their own."""
    images = iter(inputs.images)
    items: list[dict[str, Any]] = []
    for turn in inputs.messages or ():
        if turn.role == "tool":
            items.append(
                {
                    "type": "function_call_output",
                    "call_id": turn.tool_call_id or "",
                    "output": _content(turn, images),
                }
            )
            continue
        if turn.role not in _ROLES:
            raise refused(f"the role {turn.role!r}", "use system, user, assistant or tool")
        if turn.content or not turn.tool_calls:
            items.append({"role": turn.role, "content": _content(turn, images)})
        items += [
            {
                "type": "function_call",
                "call_id": each.id,
                "name": each.name,
                "arguments": exact_json(each.arguments),
            }
            for each in turn.tool_calls
        ]
    return items


def _content(turn: ChatMessage, images: Any) -> str | list[dict[str, Any]]:
    if isinstance(turn.content, str):
        return turn.content
    kind = "output_text" if turn.role == "assistant" else "input_text"
    return [
        {"type": kind, "text": part.text}
        if part.type == "text"
        else {"type": "input_image", "image_url": data_url(next(images)), "detail": "auto"}
        for part in turn.content
    ]


def _tool(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        # Here, providers are strict unless the request states otherwise.
        "strict": tool.strict,
    }


def _tool_choice(settings: SamplingOptions) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if settings.tool_name is not None:
        body["tool_choice"] = {"type": "function", "name": settings.tool_name}
    elif settings.tool_choice == "required":
        body["tool_choice"] = "required"
    if not settings.parallel_tool_calls:
        body["parallel_tool_calls"] = False
    return body
