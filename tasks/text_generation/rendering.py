"""Answers of /v1/chat/completions and /v1/completions, for OpenAI's client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from assay.plugins import declare


def usage(answer: declare.Answer) -> dict[str, int]:
    """Return the token counts of one answer: the prompt, counted once, and all choices."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


@dataclass(slots=True)
class _GenerationRenderer:
    id: str
    model: str
    created: int
    include_usage: bool = False
    tier: str = ""

    def _whole(
        self, kind: str, choices: list[dict[str, Any]], answer: declare.Answer
    ) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": usage(answer),
            "system_fingerprint": None,
            **({"service_tier": self.tier} if self.tier else {}),
        }

    def _event(self, kind: str, choices: str, usage: str = "null") -> str:
        tail = f',"usage":{usage}' if self.include_usage else ""
        if self.tier:
            tail += f',"service_tier":"{self.tier}"'
        return (
            f'data: {{"id":"{self.id}","object":"{kind}","created":{self.created},'
            f'"model":{declare.dumps(self.model)},"system_fingerprint":null,"choices":{choices}{tail}}}\n\n'
        )

    def _end(self, kind: str, answer: declare.Answer) -> str:
        events = self._event(kind, "[]", declare.dumps(usage(answer))) if self.include_usage else ""
        return f"{events}data: [DONE]\n\n"


@dataclass(slots=True)
class ChatRenderer(_GenerationRenderer):
    """A chat, as a whole and as server-sent events."""

    choices: int = 1
    _ended: set[int] = field(default_factory=set)
    _called: set[tuple[int, int]] = field(default_factory=set)

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        return self._whole(
            "chat.completion", [self._choice(each) for each in answer.choices], answer
        )

    def _choice(self, choice: declare.Choice) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": choice.text if choice.text or not choice.calls else None,
            "refusal": None,
            "annotations": [],
        }
        if choice.calls:
            message["tool_calls"] = [
                {
                    "id": self._call_id(choice.index, number),
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
                for number, (name, arguments) in sorted(choice.calls.items())
            ]
        return {
            "index": choice.index,
            "message": message,
            "finish_reason": choice.finish_reason,
            "logprobs": chat_scores(choice.scores) if choice.scores else None,
        }

    def opening(self) -> str:
        """Return the first event of each choice, which names the role."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return "".join(self._delta(index, delta) for index in range(self.choices))

    def delta(self, piece: declare.Piece) -> str:
        events = ""
        scores = chat_scores(piece.scores) if piece.scores else None
        if piece.text or scores is not None:
            events += self._delta(piece.index, {"content": piece.text}, scores)
        if piece.call is not None:
            events += self._call(piece.index, *piece.call)
        if piece.finish:
            self._ended.add(piece.index)
            events += self._delta(piece.index, {}, finish=piece.finish)
        return events

    def _call(self, index: int, number: int, name: str, arguments: str) -> str:
        """Return an event of a call: the first has its name, the others its arguments."""
        events = ""
        if (index, number) not in self._called:
            self._called.add((index, number))
            head = {
                "index": number,
                "id": self._call_id(index, number),
                "type": "function",
                "function": {"name": name, "arguments": ""},
            }
            events = self._delta(index, {"tool_calls": [head]})
        more = {"index": number, "function": {"arguments": arguments}}
        return events + self._delta(index, {"tool_calls": [more]})

    def closing(self, answer: declare.Answer) -> str:
        """Return the finish reason of each choice, the usage if requested, and the end."""
        unfinished = (index for index in range(self.choices) if index not in self._ended)
        events = (self._delta(index, {}, finish=answer.finish_reason) for index in unfinished)
        return "".join(events) + self._end("chat.completion.chunk", answer)

    def _delta(
        self, index: int, delta: Mapping[str, Any], logprobs: Any = None, finish: str | None = None
    ) -> str:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._event("chat.completion.chunk", declare.dumps([choice]))

    def _call_id(self, index: int, number: int) -> str:
        return f"call_{self.id[-24:]}{index:02d}{number:02d}"


@dataclass(slots=True)
class CompletionRenderer(_GenerationRenderer):
    """Plain completions, as a whole and as server-sent events; with probabilities if `scored`."""

    scored: bool = False
    _ended: dict[int, bool] = field(default_factory=dict)
    _lengths: dict[int, int] = field(default_factory=dict)

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        choices = [
            {
                "index": each.index,
                "finish_reason": each.finish_reason,
                "logprobs": completion_scores(each.scores) if self.scored else None,
                "text": each.text,
            }
            for each in answer.choices
        ]
        return self._whole("text_completion", choices, answer)

    def opening(self) -> str:
        """Return an empty text: a plain completion has no opening event."""
        return ""

    def delta(self, piece: declare.Piece) -> str:
        scores = None
        if piece.scores:
            start = self._lengths.get(piece.index, 0)
            scores = completion_scores(piece.scores, start)
            self._lengths[piece.index] = start + sum(len(_token(each[0])) for each in piece.scores)
        self._ended[piece.index] = bool(piece.finish)
        return self._choice(piece.index, piece.text, scores, piece.finish or None)

    def closing(self, answer: declare.Answer) -> str:
        """Return the finish reason of each choice, the usage if requested, and the end."""
        unfinished = [
            index for index, ended in sorted(self._ended.items() or [(0, False)]) if not ended
        ]
        events = (self._choice(index, "", None, answer.finish_reason) for index in unfinished)
        return "".join(events) + self._end("text_completion", answer)

    def _choice(self, index: int, text: str, logprobs: Any, finish: str | None) -> str:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return self._event("text_completion", declare.dumps([choice]))


def chat_scores(scores: Iterable[declare.TokenScore]) -> dict[str, Any]:
    """Return the probabilities of a chat's tokens."""
    return {
        "content": [
            {
                **_scored(token, score or 0.0),
                "top_logprobs": [_scored(each, log) for each, log in likeliest],
            }
            for token, score, likeliest in scores
        ],
        "refusal": None,
    }


def _scored(token: str, score: float) -> dict[str, Any]:
    return {"token": _token(token), "logprob": score, "bytes": list(token.encode("latin-1"))}


def completion_scores(scores: Iterable[declare.TokenScore], start: int = 0) -> dict[str, Any]:
    """Return the probabilities of a completion's tokens; `start` is the offset of the first one."""
    columns: dict[str, list[Any]] = {
        "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []
    }  # fmt: skip
    for token, score, likeliest in scores:
        columns["tokens"].append(_key(token))
        columns["token_logprobs"].append(score)
        columns["top_logprobs"].append(
            None if score is None else {_key(each): log for each, log in likeliest}
        )
        columns["text_offset"].append(start)
        start += len(_token(token))
    return columns


def _token(token: str) -> str:
    return token.encode("latin-1").decode("utf-8", "replace")


def _key(token: str) -> str:
    """Return a token as text, or `bytes:` and its bytes for an incomplete character."""
    data = token.encode("latin-1")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
