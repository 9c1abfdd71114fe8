"""Choices of one request: one row each, and one final event after the last row ends."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from registry.catalog.endpoints import TokenScore
from workers.engines.protocol import Sink
from workers.wire import Delta, Done, Failed


@dataclass(slots=True, eq=False)
class Choices:
    """Forwards the events of one request to its sink. Only the engine's thread may call it.

    Of the `generated` choices of each prompt, the likeliest `returned` are sent. `prompt_scores`
    maps the place of an echoed prompt in the request to the scores of its tokens. `submitted`,
    `started` and `first_token` are monotonic times: the latter two of the first row that was
    computed, and of the first token of any row.
    """

    sink: Sink
    prompt_tokens: int
    prompts: int = 1
    generated: int = 1
    returned: int = 1
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None
    first_token: float | None = None
    completion_tokens: int = 0
    likelihood: dict[str, float] | None = None
    over: bool = False
    prompt_scores: dict[int, list[TokenScore]] = field(default_factory=dict)
    _ended: dict[int, str] = field(default_factory=dict)
    _held: dict[int, list[Delta]] = field(default_factory=dict)
    _means: dict[int, float] = field(default_factory=dict)
    _stop: str = ""

    @property
    def count(self) -> int:
        """Number of rows of the request."""
        return self.prompts * self.generated

    @property
    def ranked(self) -> bool:
        """Return whether pieces are held back until the best choices are known."""
        return self.returned < self.generated

    def count_tokens(self, tokens: int) -> None:
        """Count generated tokens."""
        if self.first_token is None:
            self.first_token = time.monotonic()
        self.completion_tokens += tokens

    def send(self, delta: Delta) -> None:
        """Send a piece, or hold it back until the best choices are known."""
        if self.ranked:
            self._held.setdefault(delta.index, []).append(delta)
        elif not self.over:
            self.sink(delta)

    def end(self, index: int, finish: str, mean: float = 0.0, stop: str = "") -> None:
        """Record the end of a choice. `mean` is the mean log probability of its tokens, `stop` the
        stop text to name in the request's last event.
        """
        if self.over or index in self._ended:
            return
        self._ended[index] = finish
        self._means[index] = mean
        self._stop = stop
        if self.count > 1 and finish != "canceled":
            self.send(Delta("", 0, index, finish=finish))
        if len(self._ended) == self.count:
            self._close()

    def fail(self, code: str, message: str, status: int) -> None:
        """Send the last event of a failed request; its other rows stop because `over` is set.

        A failure that the request caused (status below 500) reports the tokens used so far, because
        the caller of a stream has received them.
        """
        if self.over:
            return
        self.over = True
        failed = Failed(code, message, status)
        if status < 500:
            failed = replace(
                failed,
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self.completion_tokens,
                units=self.prompt_tokens + self.completion_tokens,
            )
        self.sink(failed)

    def _close(self) -> None:
        if self.ranked and "canceled" not in self._ended.values():
            self._send_best()
        self.over = True
        canceled = "canceled" in self._ended.values()
        now = time.monotonic()
        started = self.submitted if self.started is None else self.started
        first = self.first_token
        self.sink(
            Done(
                finish_reason="canceled" if canceled else self._ended[min(self._ended)],
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self.completion_tokens,
                queue_ms=round((started - self.submitted) * 1000),
                results=None if self.likelihood is None else [self.likelihood],
                units=self.prompt_tokens + self.completion_tokens,
                stop=self._stop,
                prefill_ms=0 if first is None else max(0, round((first - started) * 1000)),
                decode_ms=0 if first is None else round((now - first) * 1000),
            )
        )

    def _send_best(self) -> None:
        """Send the likeliest choices of each prompt, renumbered from 0."""
        for prompt in range(self.prompts):
            own = range(prompt * self.generated, (prompt + 1) * self.generated)
            best = sorted(own, key=lambda index: -self._means[index])[: self.returned]
            for place, index in enumerate(best):
                for delta in self._held.get(index, ()):
                    self.sink(replace(delta, index=prompt * self.returned + place))
