"""Answers of /v1/responses, for OpenAI's client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from assay.plugins import declare


@dataclass(slots=True)
class ResponsesRenderer:
    """Output items, as a whole and as server-sent events: a message, and calls of functions.

    `stated` are the response's fields that repeat the request. `ended` is the complete response,
    None until then.
    """

    id: str
    model: str
    created: int
    stated: dict[str, Any]
    _number: int = 0
    _items: list[dict[str, Any]] = field(default_factory=list)
    _text: list[str] | None = None
    ended: dict[str, Any] | None = None

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        choice = answer.choices[0]
        if choice.text or not choice.calls:
            self._items.append(self._message(_status(answer), choice.text))
        for name, arguments in (choice.calls[number] for number in sorted(choice.calls)):
            self._items.append(self._call(name, arguments, "completed"))
        return self._response(answer)

    def opening(self) -> str:
        """Return the events that start the response."""
        begun = self.begun()
        return self._event("response.created", response=begun) + self._event(
            "response.in_progress", response=begun
        )

    def delta(self, piece: declare.Piece) -> str:
        events = ""
        if piece.text:
            if self._text is None:
                events += self._begin_message()
            assert self._text is not None  # noqa: S101
            self._text.append(piece.text)
            events += self._event(
                "response.output_text.delta", **self._place(), delta=piece.text, logprobs=[]
            )
        if piece.call is not None:
            _, name, arguments = piece.call
            events += self._end_message("completed") + self._call_events(name, arguments)
        return events

    def closing(self, answer: declare.Answer) -> str:
        """Return the events that end the message and the response."""
        events = ""
        if self._text is None and not self._items:
            events += self._begin_message()
        events += self._end_message(_status(answer))
        response = self._response(answer)
        return events + self._event(f"response.{response['status']}", response=response)

    def _begin_message(self) -> str:
        self._text = []
        item = self._message("in_progress", None)
        place = self._place()
        return self._event(
            "response.output_item.added", output_index=place["output_index"], item=item
        ) + self._event("response.content_part.added", **place, part=_part(""))

    def _end_message(self, status: str) -> str:
        """Return the events that end the open message; they repeat its whole text."""
        if self._text is None:
            return ""
        text, place = "".join(self._text), self._place()
        item = self._message(status, text)
        self._text = None
        self._items.append(item)
        return (
            self._event("response.output_text.done", **place, text=text, logprobs=[])
            + self._event("response.content_part.done", **place, part=_part(text))
            + self._event(
                "response.output_item.done", output_index=place["output_index"], item=item
            )
        )

    def _call_events(self, name: str, arguments: str) -> str:
        """Return the events of one complete call."""
        index = len(self._items)
        begun = self._call(name, "", "in_progress")
        item = self._call(name, arguments, "completed")
        self._items.append(item)
        place = {"item_id": item["id"], "output_index": index}
        return (
            self._event("response.output_item.added", output_index=index, item=begun)
            + self._event("response.function_call_arguments.delta", **place, delta=arguments)
            + self._event(
                "response.function_call_arguments.done", **place, arguments=arguments, name=name
            )
            + self._event("response.output_item.done", output_index=index, item=item)
        )

    def begun(self) -> dict[str, Any]:
        """Return the response before the first piece of its answer."""
        return self._response(None)

    def forgo(self) -> None:
        """Mark the response as not stored."""
        self.stated["store"] = False

    def _response(self, answer: declare.Answer | None) -> dict[str, Any]:
        status = "in_progress" if answer is None else _status(answer)
        cut = status == "incomplete"
        response = {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "model": self.model,
            "output": [] if answer is None else self._items,
            "truncation": "disabled",
            "usage": None if answer is None else _usage(answer),
            **self.stated,
        }
        if answer is not None:
            self.ended = response
        return response

    def _message(self, status: str, text: str | None) -> dict[str, Any]:
        return {
            "id": f"msg_{self.id[5:]}{len(self._items):02d}",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [] if text is None else [_part(text)],
        }

    def _call(self, name: str, arguments: str, status: str) -> dict[str, Any]:
        number = f"{self.id[-24:]}{len(self._items):02d}"
        return {
            "id": f"fc_{number}",
            "type": "function_call",
            "status": status,
            "call_id": f"call_{number}",
            "name": name,
            "arguments": arguments,
        }

    def _place(self) -> dict[str, Any]:
        index = len(self._items)
        item_id = f"msg_{self.id[5:]}{index:02d}"
        return {"item_id": item_id, "output_index": index, "content_index": 0}

    def _event(self, kind: str, **content: Any) -> str:
        event = {"type": kind, "sequence_number": self._number, **content}
        self._number += 1
        return f"event: {kind}\ndata: {declare.dumps(event)}\n\n"


def _status(answer: declare.Answer) -> str:
    return "incomplete" if answer.finish_reason == "length" else "completed"


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(answer: declare.Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }
