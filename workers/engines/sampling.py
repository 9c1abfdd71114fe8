"""Sampling options of a request, and one draw of the next token of every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from registry.catalog.generation import SamplingOptions

DEFAULT_MAX_TOKENS = 512
MIN_TEMPERATURE = 1e-3  # lower values mean a greedy choice; dividing by them would overflow
NUCLEUS_GUESS = 512  # candidates tried before falling back on the whole vocabulary


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling options of one request; `max_tokens` None means the engine's default.

    `logprobs` is the number of likeliest tokens to report with their probabilities; None reports
    none. `scored` rows compute the probability of each of their tokens. With `name_stop`, the last
    event names the stop text that ended the answer.
    """

    max_tokens: int | None
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    seed: int | None
    logprobs: int | None = None
    scored: bool = False
    name_stop: bool = False

    @property
    def greedy(self) -> bool:
        return self.temperature < MIN_TEMPERATURE

    @classmethod
    def of(cls, options: SamplingOptions) -> Sampling:
        """Return the sampling options of a request."""
        return cls(
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            stop=tuple(options.stop),
            seed=options.seed,
            logprobs=options.logprobs,
            scored=options.logprobs is not None or options.made > options.choices,
            name_stop=options.name_stop,
        )

    def generator(self, index: int = 0) -> torch.Generator | None:
        """Return the random generator of one choice; None for greedy sampling."""
        if self.greedy:
            return None
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed((self.seed + index) % 2**63)
        return generator


def choose(
    logits: Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator | None]
) -> list[int]:
    """Return the next token of each row of `logits` [rows, vocabulary].

    A row draws one uniform number from its own generator, so that its tokens depend on its seed
    and, rounding aside, not on the other rows of the batch.
    """
    chosen = logits.argmax(dim=-1)
    unbounded = [i for i, each in enumerate(samplings) if not each.greedy and each.top_p >= 1]
    nucleus = [i for i, each in enumerate(samplings) if not each.greedy and each.top_p < 1]
    for rows in (unbounded, nucleus):
        if not rows:
            continue
        index = torch.tensor(rows, device=logits.device)
        divisors = [samplings[row].temperature for row in rows]
        temperatures = torch.tensor(divisors, device=logits.device).unsqueeze(1)
        weights = (logits[index].float() / temperatures).softmax(dim=-1)
        uniform = torch.cat([torch.rand(1, generator=generators[row]) for row in rows])
        uniform = uniform.to(logits.device).unsqueeze(1)
        if rows is nucleus:
            top_p = torch.tensor([samplings[row].top_p for row in rows], device=logits.device)
            chosen[index] = _draw_nucleus(weights, top_p.unsqueeze(1), uniform)
        else:
            chosen[index] = _draw(weights, uniform)
    return [int(token) for token in chosen.tolist()]


def _draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """Draw positions [rows] in proportion to `weights` [rows, n], by inverse transform sampling."""
    sums = weights.cumsum(dim=-1, dtype=torch.float64)
    position = torch.searchsorted(sums, uniform * sums[:, -1:], right=True)
    return position.clamp(max=weights.shape[-1] - 1).squeeze(1)


def _draw_nucleus(weights: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Draw among the smallest set of tokens whose weights reach `top_p`."""
    best, tokens = weights.topk(min(NUCLEUS_GUESS, weights.shape[-1]), dim=-1)
    if bool((best.sum(dim=-1, keepdim=True) < top_p).any()):
        best, tokens = weights.sort(dim=-1, descending=True)
    before = best.cumsum(dim=-1) - best
    before[:, 0] = -1.0  # the likeliest token always stays, so that top_p 0 is greedy
    nucleus = best.masked_fill(before >= top_p, 0.0)
    return tokens.gather(1, _draw(nucleus, uniform).unsqueeze(1)).squeeze(1)
