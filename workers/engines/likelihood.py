"""Likelihoods of given answers and of prompts, by the model that generates."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workers.engines.adapters import IGNORED, AdaptedModel
from workers.engines.batch import Row, prompts_of
from workers.engines.scores import BytesOf, token_scores, unscored

# Logits of so many positions: 0.4 GB for a vocabulary of 50,000.
MAX_POSITIONS = 2_048


def measure_references(model: AdaptedModel, rows: Sequence[Row], padding: int) -> None:
    """Set `likelihood` of each row that has a `reference`: its summed nats and its tokens."""
    measured = sorted((row for row in rows if row.reference), key=_length)
    while measured:
        longest = _length(measured[-1])
        count = max(1, MAX_POSITIONS // longest)
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
        whole = torch.tensor(row.prompt + row.reference)
        tokens[number, : len(whole)] = whole
        labels[number, len(row.prompt) : len(whole)] = whole[len(row.prompt) :]
        mask[number, : len(whole)] = 1
    losses = model.losses(
        tokens.to(model.device),
        mask.to(model.device),
        labels.to(model.device),
        [row.adapter for row in rows],
    )
    for row, nats in zip(rows, losses.tolist(), strict=True):
        row.likelihood = {
            "nats": nats,
            "tokens": len(row.reference),
            "complete": not row.reference_cut,
        }


def score_prompts(model: AdaptedModel, rows: Sequence[Row], bytes_of: BytesOf) -> None:
    """Set `prompt_scores` of each row that echoes its prompt with probabilities."""
    wanted = [row for row in rows if row.echo is not None and row.sampling.logprobs is not None]
    first, places = prompts_of(wanted)
    for row in first:
        # One at a time: a padded batch would hold the logits of every position of all prompts.
        tokens = torch.tensor([row.prompt], device=model.device)
        logs = model.log_probabilities(tokens, torch.ones_like(tokens), [row.adapter])[0, :-1]
        tops = [row.sampling.logprobs or 0] * len(logs)
        row.prompt_scores = [
            unscored(row.prompt[0], bytes_of),
            *token_scores(logs, row.prompt[1:], tops, bytes_of),
        ]
    for row, place in zip(wanted, places, strict=True):
        row.prompt_scores = first[place].prompt_scores
