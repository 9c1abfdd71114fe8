"""Likelihoods of reference answers and of prompts under the generating model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workers.engines.adapters import IGNORED, AdaptedModel
from workers.engines.batch import Row
from workers.engines.scores import BytesOf, token_scores, unscored

# Positions per forward pass: their logits take 0.4 GB for a vocabulary of 50,000.
MAX_POSITIONS = 2_048


def measure_references(model: AdaptedModel, rows: Sequence[Row], padding: int) -> None:
    """Set `likelihood` of each row that has a `reference`: its summed nats and token count."""
    measured = sorted((row for row in rows if row.reference), key=_length)
    while measured:
        longest = _length(measured[-1])
        if longest > MAX_POSITIONS:
            row = measured.pop()
            _note(row, _measure_long(model, row))
            continue
        count = MAX_POSITIONS // longest
        batch, measured = measured[-count:], measured[:-count]
        _measure(model, batch, padding)


def _length(row: Row) -> int:
    return len(row.prompt) + len(row.reference)


def _measure(model: AdaptedModel, rows: Sequence[Row], padding: int) -> None:
    shape = (len(rows), max(map(_length, rows)))
    tokens = torch.full(shape, padding)
    labels = torch.full(shape, IGNORED)
    mask = torch.zeros(shape, dtype=torch.long)
    for number, row in enumerate(rows):
        sequence = torch.tensor(row.prompt + row.reference)
        tokens[number, : len(sequence)] = sequence
        labels[number, len(row.prompt) : len(sequence)] = sequence[len(row.prompt) :]
        mask[number, : len(sequence)] = 1
    losses = model.losses(
        tokens.to(model.device),
        mask.to(model.device),
        labels.to(model.device),
        [row.adapter for row in rows],
    )
    for row, nats in zip(rows, losses.tolist(), strict=True):
        _note(row, nats)


def _note(row: Row, nats: float) -> None:
    row.likelihood = {
        "nats": nats,
        "tokens": len(row.reference),
        "complete": not row.reference_cut,
    }


def _measure_long(model: AdaptedModel, row: Row) -> float:
    """Return the summed nats of a reference whose row is too long for one forward pass."""
    tokens = row.prompt + row.reference
    total, place = 0.0, 0
    for logs in model.log_probabilities(tokens[:-1], row.adapter):
        first = max(len(row.prompt) - 1 - place, 0)
        next_tokens = tokens[place + first + 1 : place + len(logs) + 1]
        index = torch.tensor(next_tokens, dtype=torch.long, device=logs.device).unsqueeze(1)
        total -= float(logs[first:].gather(1, index).double().sum())
        place += len(logs)
    return total


def score_prompt(model: AdaptedModel, row: Row, bytes_of: BytesOf) -> None:
    """Score the prompt of a row that echoes it with probabilities, once for all its choices."""
    scores = row.choices.prompt_scores
    if row.echo is None or row.sampling.logprobs is None or row.place in scores:
        return
    own = [unscored(row.prompt[0], bytes_of)]
    for logs in model.log_probabilities(row.prompt[:-1], row.adapter):
        following = row.prompt[len(own) : len(own) + len(logs)]
        tops = [row.sampling.logprobs] * len(logs)
        own += token_scores(logs, following, tops, bytes_of)
    scores[row.place] = own
