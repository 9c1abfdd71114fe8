"""Changes to one row's logits before a token is drawn: biases, penalties and a grammar."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from registry.catalog.generation import SamplingOptions
from workers.engines.grammars import Constraint


class Shaper:
    """Changes that one request makes to the logits; built by `of`."""

    def __init__(self, options: SamplingOptions, constraint: Constraint | None) -> None:
        self._tokens = torch.tensor([int(token) for token in options.logit_bias], dtype=torch.long)
        self._biases = torch.tensor(list(options.logit_bias.values()))
        self._presence = options.presence_penalty
        self._frequency = options.frequency_penalty
        self._counts: Counter[int] = Counter()
        self._constraint = constraint

    @classmethod
    def of(cls, options: SamplingOptions, constraint: Constraint | None) -> Shaper | None:
        """Return the shaper of a choice; None if its logits do not change."""
        penalized = options.presence_penalty or options.frequency_penalty
        if not (options.logit_bias or penalized or constraint):
            return None
        return cls(options, constraint)

    def apply(self, logits: Tensor) -> None:
        """Change `logits` [vocabulary] in place. Raises as `Constraint.apply`."""
        device = logits.device
        if len(self._tokens):
            logits[self._tokens.to(device)] += self._biases.to(device)
        if self._counts and (self._presence or self._frequency):
            tokens = torch.tensor(list(self._counts), device=device)
            counts = torch.tensor(list(self._counts.values()), device=device)
            logits[tokens] -= self._presence + self._frequency * counts
        if self._constraint is not None:
            self._constraint.apply(logits)

    def take(self, token: int, left: int) -> int:
        """Count a chosen token, or the one that replaces it; returns it.

        `left` is the number of tokens that may follow. Raises as `Constraint.take`.
        """
        if self._constraint is not None:
            token = self._constraint.take(token, left)
        if self._presence or self._frequency:
            self._counts[token] += 1
        return token

    def follow(self, text: str) -> None:
        """Advance the grammar by a text that has been sent. Raises as `Constraint.take`."""
        if self._constraint is not None:
            self._constraint.follow(text)

    def ending(self, left: int) -> list[int]:
        """Return at most `left` tokens that complete the answer; empty if that is impossible."""
        return [] if self._constraint is None else self._constraint.ending(left)

    @property
    def complete(self) -> bool:
        """Return whether the grammar has been completed."""
        return self._constraint is not None and self._constraint.complete
