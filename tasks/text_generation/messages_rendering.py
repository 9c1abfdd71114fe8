"""Answers of /v1/messages, for Anthropic's client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from assay.plugins import declare

_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}


@dataclass(slots=True)
class MessagesRenderer:
    """Content blocks, as a whole and as server-sent events: a text, and calls of functions.

    A stream states the tokens of its prompt at its end, when their number is known.
    """

    id: str
    model: str
    _blocks: int = 0
    _text_open: bool = False
    _calls: set[int] = field(default_factory=set)
    _call_open: bool = False

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        return self._message(_content(self.id, answer.choices[0]), answer)

    def opening(self) -> str:
        """Return the event that starts the message."""
        return _event("message_start", message=self._message([], None))

    def delta(self, piece: declare.Piece) -> str:
        events = ""
        if piece.text:
            if not self._text_open:
                events += self._end_block() + self._begin_block({"type": "text", "text": ""})
                self._text_open = True
            events += self._block_delta({"type": "text_delta", "text": piece.text})
        if piece.call is not None:
            number, name, arguments = piece.call
            if number not in self._calls:
                self._calls.add(number)
                begun = {"type": "tool_use", "id": _call_id(self.id, number), "name": name}
                events += self._end_block() + self._begin_block({**begun, "input": {}})
                self._call_open = True
            if arguments:
                events += self._block_delta({"type": "input_json_delta", "partial_json": arguments})
        return events

    def closing(self, answer: declare.Answer) -> str:
        """Return the events that end the block and the message."""
        events = ""
        if not self._blocks:
            events += self._begin_block({"type": "text", "text": ""})
            self._text_open = True
        return (
            events
            + self._end_block()
            + _event("message_delta", delta=_end(answer), usage=_usage(answer))
            + _event("message_stop")
        )

    def _message(
        self, content: list[dict[str, Any]], answer: declare.Answer | None
    ) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            **_end(answer),
            "usage": {**_usage(answer), "service_tier": "standard"},
        }

    def _begin_block(self, block: dict[str, Any]) -> str:
        self._blocks += 1
        return _event("content_block_start", index=self._blocks - 1, content_block=block)

    def _block_delta(self, delta: dict[str, Any]) -> str:
        return _event("content_block_delta", index=self._blocks - 1, delta=delta)

    def _end_block(self) -> str:
        if not (self._text_open or self._call_open):
            return ""
        self._text_open = self._call_open = False
        return _event("content_block_stop", index=self._blocks - 1)


@dataclass(slots=True)
class CountRenderer:
    """The number of tokens of the input. `kind` is the name of OpenAI's object."""

    kind: str = ""

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        kind = {"object": self.kind} if self.kind else {}
        return {**kind, "input_tokens": answer.prompt_tokens}


def _content(message_id: str, choice: declare.Choice) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if choice.text or not choice.calls:
        blocks.append({"type": "text", "text": choice.text})
    for number, (name, arguments) in sorted(choice.calls.items()):
        blocks.append(
            {
                "type": "tool_use",
                "id": _call_id(message_id, number),
                "name": name,
                "input": _arguments(arguments),
            }
        )
    return blocks


def _arguments(text: str) -> Any:
    """Return a call's arguments; empty if the token limit cut the call."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return {}


def _call_id(message_id: str, number: int) -> str:
    return f"toolu_{message_id[-24:]}{number:02d}"


def _end(answer: declare.Answer | None) -> dict[str, Any]:
    if answer is None:
        return {"stop_reason": None, "stop_sequence": None}
    if answer.stop:
        return {"stop_reason": "stop_sequence", "stop_sequence": answer.stop}
    reason = _REASONS.get(answer.finish_reason, "end_turn")
    return {"stop_reason": reason, "stop_sequence": None}


def _usage(answer: declare.Answer | None) -> dict[str, Any]:
    return {
        "input_tokens": 0 if answer is None else answer.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0 if answer is None else answer.completion_tokens,
    }


def _event(kind: str, **content: Any) -> str:
    return f"event: {kind}\ndata: {declare.dumps({'type': kind, **content})}\n\n"
