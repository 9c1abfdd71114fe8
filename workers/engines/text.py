"""Text of tokens that may be sent: whole characters only, and never part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workers.engines.tool_calls import overlap

BROKEN = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Decodes the text of one answer while it is generated.

    A byte-level token can be part of a character, so text is held back while it ends in U+FFFD.
    Text that could be the beginning of a stop string is held back until that is ruled out.

    Args:
        tokenizer: Decodes tokens; special tokens yield no text.
        stops: Texts at which the answer ends; they are not part of it. `stop` is the text that
            ended the answer.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._tokens: list[int] = []
        # Decoding starts at `_from`, some tokens before the new ones, because a token's text may
        # depend on the token before it; the text up to `_read` has been taken already.
        self._from = 0
        self._read = 0
        self._held = ""
        self.stopped = False
        self.stop = ""

    def push(self, token: int, spoken: str | None = None) -> str:
        """Take one more token; returns the text that may be sent now, often empty.

        `spoken` is the text since the previous token; pass it if tokens in between are unknown.
        """
        self._tokens.append(token)
        if spoken is not None:
            self._from, self._read = len(self._tokens) - 1, len(self._tokens)
            return self._release(spoken)
        before, now = self._decode(self._from, self._read), self._decode(self._from)
        if now.endswith(BROKEN) or len(now) <= len(before):
            return ""
        self._from, self._read = self._read, len(self._tokens)
        return self._release(now[len(before) :])

    def flush(self) -> str:
        """Return the text still held back, after the last token."""
        if self.stopped:
            return ""
        before, now = self._decode(self._from, self._read), self._decode(self._from)
        self._from = self._read = len(self._tokens)
        text = self._release(now[len(before) :])
        rest, self._held = self._held, ""
        return text + rest

    def _decode(self, start: int, end: int | None = None) -> str:
        tokens = self._tokens[start:end]
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)) if tokens else ""

    def _release(self, new: str) -> str:
        text = self._held + new
        if not self._stops:
            return text
        matches = [(place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if matches:
            self.stopped, self._held = True, ""
            place, self.stop = min(matches)
            return text[:place]
        keep = max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]
