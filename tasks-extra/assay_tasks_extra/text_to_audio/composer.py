"""A language model of music in `notation.py`'s tokens: compose, and compute likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import run
from assay_tasks_extra.text_to_audio.notation import (
    BLOCK,
    FIRST,
    HEADER,
    HOLD,
    STEPS_PER_BEAT,
    VOCABULARY,
    VOICES,
    Key,
    Piece,
    header_tokens,
    token_of,
    tokens,
    value_of,
)

MIN_POSITIONS = 64


class Composer:
    """Loaded weights. `steps` is the number of steps in the model's window."""

    def __init__(self, model: Any) -> None:
        config = model.config
        if config.vocab_size != VOCABULARY or config.max_position_embeddings < MIN_POSITIONS:
            raise run.UnsupportedModel(
                f"The model has {config.vocab_size} tokens and {config.max_position_embeddings} "
                f"places; music has {VOCABULARY} tokens and needs {MIN_POSITIONS} places."
            )
        self._model = model
        # Even: a full window continues from its second half, and must fill up exactly again.
        self.steps = (config.max_position_embeddings - HEADER) // VOICES // 2 * 2

    @classmethod
    def load(cls, folder: Path, architectures: Sequence[str], **settings: Any) -> Composer:
        """Return the composer of a folder. Raises UnsupportedModel."""
        return cls(run.load_model(folder, architectures, **settings))

    def compose(
        self,
        key: Key,
        opening: Sequence[int],
        steps: int,
        *,
        temperature: float,
        top_p: float,
        generator: torch.Generator,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[tuple[int, ...]]:
        """Return the voices' values by step; the soprano begins with `opening`, one note a beat.

        Ends early, with the steps so far, when `stop` returns True.
        """
        header = header_tokens(key)
        forced = _forced(key, opening)
        written: list[int] = []
        cache, inputs = None, torch.tensor([header])
        while len(written) < steps * VOICES and not stop():
            if len(header) + len(written) >= HEADER + self.steps * VOICES and (
                len(written) % (self.steps // 2 * VOICES) == 0
            ):
                # The window is full: continue from its second half.
                cache = None
                inputs = torch.tensor([header + written[-(self.steps // 2 * VOICES) :]])
            output = self._model(
                inputs.to(self._model.device), past_key_values=cache, use_cache=True
            )
            cache = output.past_key_values
            logits = output.logits[0, -1].float().cpu()
            token = forced.get(len(written))
            if token is None:
                token = _sampled(logits, len(written), temperature, top_p, generator)
            written.append(token)
            inputs = torch.tensor([[token]])
        values = [value_of(token, key) for token in written]
        whole = len(values) // VOICES
        return [tuple(values[at * VOICES : (at + 1) * VOICES]) for at in range(whole)]

    def nats(self, piece: Piece) -> float:
        """Return the negative log-likelihood of a piece's steps for its mode."""
        total = 0.0
        done = 0
        while done < len(piece.steps):
            start = max(0, done - self.steps // 2)
            part = piece.steps[start : start + self.steps]
            inputs = torch.tensor([tokens(Piece(piece.key, piece.tempo, part))])
            losses = self._losses(inputs.to(self._model.device))
            total += float(losses[HEADER - 1 + (done - start) * VOICES :].sum())
            done = start + len(part)
        return total

    def _losses(self, inputs: Tensor) -> Tensor:
        logits = self._model(inputs).logits[0, :-1].float()
        return torch.nn.functional.cross_entropy(logits, inputs[0, 1:], reduction="none")


def _forced(key: Key, opening: Sequence[int]) -> dict[int, int]:
    """Return the soprano's tokens by position."""
    forced = {}
    for beat, number in enumerate(opening):
        at = beat * STEPS_PER_BEAT
        forced[at * VOICES] = token_of(number, key, 0)
        for offset in range(1, STEPS_PER_BEAT):
            forced[(at + offset) * VOICES] = token_of(HOLD, key, 0)
    return forced


def _sampled(
    logits: Tensor, place: int, temperature: float, top_p: float, generator: torch.Generator
) -> int:
    """Draw a token of the next voice; voices cannot hold a note in the first step."""
    first = FIRST + place % VOICES * BLOCK + (place < VOICES)
    allowed = logits[first : first + BLOCK - (place < VOICES)]
    scores, order = (allowed / temperature).softmax(-1).sort(descending=True)
    scores[(scores.cumsum(-1) - scores) >= top_p] = 0
    return first + int(order[torch.multinomial(scores, 1, generator=generator)])
