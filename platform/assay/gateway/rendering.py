"""Answers in OpenAI's shapes, byte for byte as its official client reads them."""

from __future__ import annotations

import base64
import json
import math
import struct
from dataclasses import dataclass
from typing import Any, Protocol

from assay.gateway.errors import RequestInvalid
from workers.wire import Done


def dumps(value: Any) -> str:
    """Compact JSON. A lone surrogate, which UTF-8 cannot hold, becomes a question mark later."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def usage(done: Done) -> dict[str, int]:
    """Token counts of one answer."""
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "total_tokens": done.prompt_tokens + done.completion_tokens,
    }


class Renderer(Protocol):
    """One answer as it leaves. Only generations stream."""

    def whole(self, text: str, done: Done) -> dict[str, Any]:
        """The answer in one piece.

        Raises:
            RequestInvalid: what was asked for does not fit what was computed.
        """


@dataclass(slots=True)
class GenerationRenderer:
    """Chat and plain completions, whole and as server-sent events."""

    id: str
    model: str
    created: int
    chat: bool
    include_usage: bool = False

    def whole(self, text: str, done: Done) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": done.finish_reason, "logprobs": None}
        if self.chat:
            choice["message"] = {
                "role": "assistant",
                "content": text,
                "refusal": None,
                "annotations": [],
            }
        else:
            choice["text"] = text
        return {
            "id": self.id,
            "object": "chat.completion" if self.chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "usage": usage(done),
            "system_fingerprint": None,
        }

    def opening(self) -> str:
        """The first event of a chat names the role; a plain completion has none."""
        if not self.chat:
            return ""
        return self._event(
            '[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},'
            '"logprobs":null,"finish_reason":null}]'
        )

    def delta(self, text: str) -> str:
        shown = dumps(text)
        if self.chat:
            return self._event(
                f'[{{"index":0,"delta":{{"content":{shown}}},"logprobs":null,"finish_reason":null}}]'
            )
        return self._event(f'[{{"index":0,"text":{shown},"logprobs":null,"finish_reason":null}}]')

    def closing(self, done: Done) -> str:
        """The finish reason, the usage when it was asked for, and the end."""
        reason = dumps(done.finish_reason)
        body = '"delta":{}' if self.chat else '"text":""'
        events = self._event(f'[{{"index":0,{body},"logprobs":null,"finish_reason":{reason}}}]')
        if self.include_usage:
            events += self._event("[]", usage=dumps(usage(done)))
        return f"{events}data: [DONE]\n\n"

    def _event(self, choices: str, usage: str = "null") -> str:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        tail = f',"usage":{usage}' if self.include_usage else ""
        return (
            f'data: {{"id":"{self.id}","object":"{kind}","created":{self.created},'
            f'"model":{dumps(self.model)},"system_fingerprint":null,"choices":{choices}{tail}}}\n\n'
        )


@dataclass(slots=True)
class EmbeddingsRenderer:
    """Vectors, as little-endian float32 in base64 or as numbers."""

    model: str
    as_base64: bool
    dimensions: int | None

    def whole(self, text: str, done: Done) -> dict[str, Any]:
        vectors = [self._shorten(vector) for vector in done.results or ()]
        return {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _base64(vector) if self.as_base64 else vector,
                }
                for index, vector in enumerate(vectors)
            ],
            "model": self.model,
            "usage": {"prompt_tokens": done.prompt_tokens, "total_tokens": done.prompt_tokens},
        }

    def _shorten(self, vector: list[float]) -> list[float]:
        if self.dimensions is None or self.dimensions == len(vector):
            return vector
        if self.dimensions > len(vector):
            raise RequestInvalid(
                f"dimensions is {self.dimensions}, but {self.model} has {len(vector)}.",
                param="dimensions",
            )
        head = vector[: self.dimensions]
        length = math.sqrt(sum(value * value for value in head)) or 1.0
        return [value / length for value in head]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


@dataclass(slots=True)
class ClassifyRenderer:
    """The best label of each input, and the score of every label."""

    id: str
    model: str

    def whole(self, text: str, done: Done) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "list",
            "model": self.model,
            "data": [
                {"index": index, "label": scores[0]["label"], "scores": scores}
                for index, scores in enumerate(done.results or ())
            ],
            "usage": {"prompt_tokens": done.prompt_tokens, "total_tokens": done.prompt_tokens},
        }
