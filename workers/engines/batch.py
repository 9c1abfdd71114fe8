"""The rows that are being answered together: prefill, join, step, leave."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workers.engines.adapters import AdaptedModel
from workers.engines.kv import SlabCache
from workers.engines.protocol import Sink, raise_exits
from workers.engines.sampling import Sampling, choose
from workers.engines.text import TextStream
from workers.wire import Delta, Done, Event, Failed

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Row:
    """One request on its way. `limit` is how many tokens it may still have made in all.

    `images` are the pixels of the images that the prompt has places for. `reference` holds the
    tokens of an answer whose likelihood is measured beside the generation, `likelihood` the result,
    {"nats", "tokens", "complete"}; `reference_cut` if it had no room.
    """

    request_id: str
    adapter: str | None
    prompt: list[int]
    limit: int
    sampling: Sampling
    text: TextStream
    sink: Sink
    generator: torch.Generator | None
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None
    produced: int = 0
    unsent: int = 0
    finish: str | None = None
    broken: bool = False
    images: list[Tensor] = field(default_factory=list)
    reference: list[int] = field(default_factory=list)
    reference_cut: bool = False
    likelihood: dict[str, float] | None = None

    @property
    def length(self) -> int:
        """Positions that the row fills in the cache once its newest token is in it."""
        return len(self.prompt) + self.produced

    @property
    def final_length(self) -> int:
        """The most positions that the row can come to fill."""
        return len(self.prompt) + self.limit

    def take(self, token: int, eos: frozenset[int]) -> None:
        """Account for a new token, send what can be sent, and notice the end."""
        self.produced += 1
        self.unsent += 1
        try:
            text = self._text_of(token, eos)
        except BaseException as error:
            # The decoder came with the model. The row leaves at this step, the others go on.
            logger.exception("the text of request %s cannot be made", self.request_id)
            self.finish, self.broken, text = "error", True, ""
            raise_exits(error)
        if text:
            self._send(Delta(text=text, tokens=self.unsent))
            self.unsent = 0

    def _text_of(self, token: int, eos: frozenset[int]) -> str:
        """The text that may be sent after a new token; notices the end."""
        text = ""
        if token in eos:
            self.finish = "stop"
        else:
            text = self.text.push(token)
        if self.finish is None and self.text.stopped:
            self.finish = "stop"
        if self.finish is None and self.produced >= self.limit:
            self.finish = "length"
        if self.finish is not None:
            text += self.text.flush()
            if self.text.stopped:
                self.finish = "stop"
        return text

    def end(self, finish: str | None = None) -> None:
        """Send the last event."""
        if self.broken:
            self.fail("engine_error", "The model's tokenizer failed on the answer.", 500)
            return
        started = self.submitted if self.started is None else self.started
        self._send(
            Done(
                finish_reason=finish or self.finish or "stop",
                prompt_tokens=len(self.prompt),
                completion_tokens=self.produced,
                queue_ms=round((started - self.submitted) * 1000),
                results=None if self.likelihood is None else [self.likelihood],
                units=len(self.prompt) + self.produced,
            )
        )

    def fail(self, code: str, message: str, status: int) -> None:
        """Send the last event of a request that broke."""
        self._send(Failed(code=code, message=message, status=status))

    def _send(self, event: Event) -> None:
        try:
            self.sink(event)
        except Exception:
            # Nobody listens any more: the row leaves at this step, the others go on.
            logger.exception("the sink of request %s failed", self.request_id)
            self.finish = self.finish or "cancelled"


class Batch:
    """Rows with one key/value cache; each has one token chosen that the model has not seen yet."""

    def __init__(
        self,
        model: AdaptedModel,
        rows: list[Row],
        eos: frozenset[int],
        pad: int,
    ) -> None:
        """Run the prompts of `rows` and choose their first tokens."""
        self._model = model
        self._eos = eos
        self.rows = rows
        self._cache = SlabCache()
        longest = max(len(row.prompt) for row in rows)
        padding = [longest - len(row.prompt) for row in rows]
        ids = [[pad] * space + row.prompt for space, row in zip(padding, rows, strict=True)]
        mask = [
            [0] * space + [1] * len(row.prompt) for space, row in zip(padding, rows, strict=True)
        ]
        now = time.monotonic()
        for row in rows:
            row.started = now
        self._mask = torch.tensor(mask, device=model.device)
        positions = (self._mask.cumsum(dim=-1) - 1).clamp(min=0)
        images = [image for row in rows for image in row.images]
        for row in rows:
            row.images = []  # they are in the cache from here on
        self._forward(
            torch.tensor(ids, device=model.device),
            positions,
            torch.stack(images).to(model.device) if images else None,
        )

    @property
    def length(self) -> int:
        """Positions in the cache, padding included."""
        return int(self._mask.shape[1])

    def step(self) -> None:
        """One more token for every row."""
        device = self._model.device
        ids = torch.tensor(self._newest, device=device).unsqueeze(1)
        positions = torch.tensor([row.length - 1 for row in self.rows], device=device).unsqueeze(1)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        self._forward(ids, positions)

    def _forward(self, ids: Tensor, positions: Tensor, images: Tensor | None = None) -> None:
        adapters = [row.adapter for row in self.rows]
        logits = self._model(ids, self._mask, positions, self._cache, adapters, images)
        self._newest = choose(
            logits, [row.sampling for row in self.rows], [row.generator for row in self.rows]
        )
        for row, token in zip(self.rows, self._newest, strict=True):
            row.take(token, self._eos)

    def join(self, other: Batch) -> None:
        """Take over the rows of `other`, which is used up by it."""
        length = max(self.length, other.length)
        self._cache.join(other._cache)
        self._mask = torch.cat([_widened(self._mask, length), _widened(other._mask, length)])
        self.rows += other.rows
        self._newest += other._newest

    def take_out(self, leaves: Callable[[Row], bool]) -> list[Row]:
        """Remove the rows for which `leaves` is true and the padding that nobody needs then."""
        kept = [index for index, row in enumerate(self.rows) if not leaves(row)]
        if len(kept) == len(self.rows):
            return []
        gone = [row for row in self.rows if leaves(row)]
        self.rows = [self.rows[index] for index in kept]
        self._newest = [self._newest[index] for index in kept]
        if kept:
            # The newest token is chosen but not in the cache yet.
            drop = self.length - max(row.length - 1 for row in self.rows)
            self._cache.rearrange(kept, drop)
            self._mask = self._mask[kept, drop:]
        return gone


def _widened(mask: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(mask, (length - mask.shape[1], 0))


def fits(running: Sequence[Row], new: Sequence[Row], budget: int) -> bool:
    """True when all rows together, each padded to its longest possible length, stay in `budget`."""
    rows = [*running, *new]
    longest_now = max(row.length for row in rows)
    most_left = max(row.final_length - row.length for row in rows)
    return len(rows) * (longest_now + most_left) <= budget
