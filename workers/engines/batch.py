"""Batch of rows that are answered together: prefill, join, step, leave."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from registry.catalog.endpoints import TokenScore
from registry.catalog.generation import SamplingOptions
from workers.engines.adapters import AdaptedModel
from workers.engines.choices import Choices
from workers.engines.kv import SlabCache
from workers.engines.protocol import RequestRefused, raise_exits
from workers.engines.sampling import Sampling, choose
from workers.engines.scores import BytesOf, token_scores
from workers.engines.shaping import Shaper
from workers.engines.text import TextStream
from workers.engines.tool_calls import Call, CallReader
from workers.request_logs import about
from workers.wire import Delta

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Row:
    """One choice of a request while it is generated. `limit` is the most tokens of its answer.

    `images` are the pixels of the images that the prompt has places for. `reference` holds the
    tokens of an answer whose likelihood is measured with the generation, `likelihood` the result,
    {"nats", "tokens", "complete"}; `reference_cut` is set if the reference was cut to fit. Rows of
    one prompt share the list `prompt`. `echo` is the prompt's text if the answer begins with it.
    `options` (of the request) and `grammar` (of the answer) are for engines that pass them on.
    """

    request_id: str
    adapter: str | None
    prompt: list[int]
    limit: int
    sampling: Sampling
    text: TextStream
    choices: Choices
    generator: torch.Generator | None
    index: int = 0
    shaper: Shaper | None = None
    calls: CallReader | None = None
    produced: int = 0
    unsent: int = 0
    finish: str | None = None
    broken: RequestRefused | None = None
    images: list[Tensor] = field(default_factory=list)
    reference: list[int] = field(default_factory=list)
    reference_cut: bool = False
    likelihood: dict[str, float] | None = None
    echo: str | None = None
    options: SamplingOptions = field(default_factory=SamplingOptions)
    grammar: str | None = None
    scores: list[TokenScore] = field(default_factory=list)
    total: float = 0.0
    _called: int = 0

    @property
    def place(self) -> int:
        """Index of the row's prompt among the prompts of the request."""
        return self.index // self.choices.generated

    @property
    def length(self) -> int:
        """Positions that the row fills in the cache, including its newest token."""
        return len(self.prompt) + self.produced

    @property
    def final_length(self) -> int:
        """The most positions that the row can fill."""
        return len(self.prompt) + self.limit

    def begin(self) -> None:
        """Send the prompt if the answer begins with it."""
        if self.echo is not None:
            scores = self.choices.prompt_scores.get(self.place)
            self._send(Delta(self.echo, 0, self.index, scores=scores))

    def shape(self, logits: Tensor) -> None:
        """Change the row's logits [vocabulary] as its request specifies."""
        if self.shaper is None or self.broken:
            return
        try:
            self.shaper.apply(logits)
        except RequestRefused as error:
            self._break(error)

    def settle(self, token: int) -> int:
        """Return the next token: a chosen one, or one that completes the answer in time."""
        if self.shaper is None or self.broken or self.choices.over or not self.limit:
            return token
        try:
            return self.shaper.take(token, self.limit - self.produced - 1)
        except RequestRefused as error:
            self._break(error)
            return token

    def take(
        self,
        token: int,
        eos: frozenset[int],
        score: TokenScore | None = None,
        *,
        spoken: str | None = None,
        count: int = 1,
    ) -> None:
        """Count a settled token, send the text that can be sent, and set `finish` at the end.

        `spoken` is the text of the last `count` tokens, of which only the last one is known.
        """
        if self.broken:
            return
        if self.limit == 0 or self.choices.over:
            self.finish = "length" if self.limit == 0 else "canceled"
            return
        self._count(count)
        if score is not None:
            self.total += score[1] or 0.0
            if self.sampling.logprobs is not None:
                self.scores.append(score)
        try:
            pieces = self._pieces_of(token, eos, spoken)
        except BaseException as error:
            # The decoder came with the model. This row leaves at this step; the others continue.
            logger.exception(
                "decoding a token of request %s failed",
                self.request_id,
                extra=about(self.request_id),
            )
            message = "The model's tokenizer failed on the answer."
            self._break(RequestRefused(message, code="engine_error", status=500))
            raise_exits(error)
            return
        for piece in pieces:
            self._emit(piece)
        if self.finish is not None and self.scores:
            self._emit("")

    def cut(self, count: int) -> None:
        """End the row at its limit. The last `count` tokens did not complete a character."""
        if self.broken or self.choices.over:
            return
        self._count(count)
        self.finish = "length"
        text = self.text.flush()
        if self.text.stopped:
            self.finish = "stop"
        pieces: list[str | Call] = [text] if text else []
        if self.calls is not None:
            pieces = [*self.calls.push(text), *self.calls.flush()]
        for piece in pieces:
            self._emit(piece)
        if self.scores:
            self._emit("")

    def _count(self, count: int) -> None:
        self.produced += count
        self.choices.count_tokens(count)
        self.unsent += count

    def _pieces_of(self, token: int, eos: frozenset[int], spoken: str | None) -> list[str | Call]:
        """Return the pieces that may be sent after a new token; sets `finish` at the end."""
        complete = self.shaper is not None and self.shaper.complete
        text = ""
        if token in eos:
            self.finish = "stop"
        else:
            text = self.text.push(token, spoken)
        if self.finish is None and (complete or self.text.stopped):
            self.finish = "stop"
        if self.finish is None and self.produced >= self.limit:
            self.finish = "length"
        if self.finish is not None:
            text += self.text.flush()
            if self.text.stopped:
                self.finish = "stop"
        if self.calls is None:
            return [text] if text else []
        pieces = self.calls.push(text)
        if self.calls.complete:
            self.finish = "stop"
        if self.finish is not None:
            pieces += self.calls.flush()
        return pieces

    def _emit(self, piece: str | Call) -> None:
        call = None
        if isinstance(piece, Call) and self.calls is not None:
            call = (self._called, piece.name, piece.arguments)
            self._called += 1
        scores, self.scores = self.scores, []
        text = piece if isinstance(piece, str) else ""
        self._send(Delta(text, self.unsent, self.index, call, scores or None))
        self.unsent = 0

    def end(self, finish: str | None = None) -> None:
        """Report the row's end to its choices."""
        if self.broken:
            self.fail(self.broken.code, str(self.broken), self.broken.status)
            return
        reason = finish or self.finish or "stop"
        if self._called and reason == "stop":
            reason = "tool_calls"
        if self.likelihood is not None:
            self.choices.likelihood = self.likelihood
        mean = self.total / max(1, self.produced)
        stop = self.text.stop if self.sampling.name_stop and reason == "stop" else ""
        self._guarded(lambda: self.choices.end(self.index, reason, mean, stop))

    def fail(self, code: str, message: str, status: int) -> None:
        """Send the last event of a failed request."""
        self._guarded(lambda: self.choices.fail(code, message, status))

    def _break(self, refused: RequestRefused) -> None:
        logger.info("An answer ends: %s", refused.code, extra=about(self.request_id))
        self.finish, self.broken = "error", refused

    def _send(self, delta: Delta) -> None:
        self._guarded(lambda: self.choices.send(delta))

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            # An event is lost. The row leaves at this step and the others continue; the request
            # must not look complete to the reader of its last event.
            logger.exception(
                "the sink of request %s failed", self.request_id, extra=about(self.request_id)
            )
            lost = RequestRefused("A part of the answer was lost.", code="engine_error", status=500)
            self._break(lost)
            with contextlib.suppress(Exception):
                self.choices.fail(lost.code, str(lost), lost.status)


class Batch:
    """Rows with one key/value cache; the model has not yet seen the newest token of each row."""

    def __init__(
        self,
        model: AdaptedModel,
        rows: list[Row],
        eos: frozenset[int],
        pad: int,
        bytes_of: BytesOf,
    ) -> None:
        """Run the prompts of `rows` and choose their first tokens."""
        self._model = model
        self._eos = eos
        self._bytes_of = bytes_of
        self.rows = rows
        self._cache = SlabCache()
        first, places = prompts_of(rows)
        longest = max(len(row.prompt) for row in first)
        padding = [longest - len(row.prompt) for row in first]
        ids = [[pad] * space + row.prompt for space, row in zip(padding, first, strict=True)]
        mask = [
            [0] * space + [1] * len(row.prompt) for space, row in zip(padding, first, strict=True)
        ]
        now = time.monotonic()
        for row in rows:
            row.choices.started = row.choices.started or now
        self._mask = torch.tensor(mask, device=model.device)
        positions = (self._mask.cumsum(dim=-1) - 1).clamp(min=0)
        images = [image for row in first for image in row.images]
        for row in rows:
            row.images = []  # they are in the cache from here on
        logits = self._logits(
            first,
            torch.tensor(ids, device=model.device),
            positions,
            torch.stack(images).to(model.device) if images else None,
            padding,
        )
        if len(first) < len(rows):
            self._cache.rearrange(places, 0)
            self._mask, logits = self._mask[places], logits[places]
        self._choose(logits)

    @property
    def length(self) -> int:
        """Positions in the cache, padding included."""
        return int(self._mask.shape[1])

    def step(self) -> None:
        """Make one more token for every row."""
        device = self._model.device
        ids = torch.tensor(self._newest, device=device).unsqueeze(1)
        positions = torch.tensor([row.length - 1 for row in self.rows], device=device).unsqueeze(1)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        self._choose(self._logits(self.rows, ids, positions))

    def _logits(
        self,
        rows: Sequence[Row],
        ids: Tensor,
        positions: Tensor,
        images: Tensor | None = None,
        starts: Sequence[int] | None = None,
    ) -> Tensor:
        adapters = [row.adapter for row in rows]
        return self._model(ids, self._mask, positions, self._cache, adapters, images, starts)

    def _choose(self, logits: Tensor) -> None:
        """Choose and record the next token of each row by `logits` [rows, vocabulary]."""
        scored = [number for number, row in enumerate(self.rows) if row.sampling.scored]
        logs = logits[scored].log_softmax(dim=-1) if scored else None
        for number, row in enumerate(self.rows):
            if row.shaper is not None:
                row.shape(logits[number])
        chosen = choose(
            logits, [row.sampling for row in self.rows], [row.generator for row in self.rows]
        )
        self._newest = [row.settle(token) for row, token in zip(self.rows, chosen, strict=True)]
        scores: dict[int, TokenScore] = {}
        if logs is not None:
            tokens = [self._newest[number] for number in scored]
            tops = [self.rows[number].sampling.logprobs or 0 for number in scored]
            reported = token_scores(logs, tokens, tops, self._bytes_of)
            scores = dict(zip(scored, reported, strict=True))
        for number, (row, token) in enumerate(zip(self.rows, self._newest, strict=True)):
            row.take(token, self._eos, scores.get(number))

    def join(self, other: Batch) -> None:
        """Take over the rows of `other`, which must not be used again."""
        length = max(self.length, other.length)
        self._cache.join(other._cache)
        self._mask = torch.cat([_widened(self._mask, length), _widened(other._mask, length)])
        self.rows += other.rows
        self._newest += other._newest

    def take_out(self, leaves: Callable[[Row], bool]) -> list[Row]:
        """Remove the rows for which `leaves` is true, and the padding that only they needed."""
        staying = [index for index, row in enumerate(self.rows) if not leaves(row)]
        if len(staying) == len(self.rows):
            return []
        gone = [row for row in self.rows if leaves(row)]
        self.rows = [self.rows[index] for index in staying]
        self._newest = [self._newest[index] for index in staying]
        if staying:
            # The newest token is chosen but not in the cache yet.
            drop = self.length - max(row.length - 1 for row in self.rows)
            self._cache.rearrange(staying, drop)
            self._mask = self._mask[staying, drop:]
        return gone


def prompts_of(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """Return the first row of each prompt (neighbors share prompts), and each row's index there."""
    first: list[Row] = []
    places: list[int] = []
    for row in rows:
        if not first or first[-1].prompt is not row.prompt:
            first.append(row)
        places.append(len(first) - 1)
    return first, places


def _widened(mask: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(mask, (length - mask.shape[1], 0))


def fits(running: Sequence[Row], new: Sequence[Row], budget: int) -> bool:
    """Return whether all rows, each padded to the longest possible length, stay in `budget`."""
    rows = [*running, *new]
    longest_now = max(row.length for row in rows)
    most_left = max(row.final_length - row.length for row in rows)
    return len(rows) * (longest_now + most_left) <= budget
