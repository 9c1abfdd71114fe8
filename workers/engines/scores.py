"""Token probabilities in the format of answers, for generated tokens and for prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from registry.catalog.endpoints import TokenScore

BytesOf = Callable[[int], bytes]
LEAST = -9999.0  # JSON has no infinity; OpenAI's stand-in for it


def token_scores(
    logs: Tensor, tokens: Sequence[int], tops: Sequence[int], bytes_of: BytesOf
) -> list[TokenScore]:
    """Return the score of each token.

    Args:
        logs: Log probabilities [tokens, vocabulary] of the unmodified model: before temperature,
            penalties, biases and grammars.
        tokens: The tokens.
        tops: Number of likeliest tokens to report with each token.
        bytes_of: Bytes of a token.
    """
    logs = logs.clamp(min=LEAST)
    index = logs.new_tensor(list(tokens)).long().unsqueeze(1)
    chosen = logs.gather(1, index).squeeze(1).tolist()
    most = max(tops, default=0)
    values, best = logs.topk(most, dim=-1) if most else (logs[:, :0], index[:, :0])
    pairs = zip(best.tolist(), values.tolist(), strict=True)
    return [
        (_text(token, bytes_of), score, [
            (_text(each, bytes_of), log)
            for each, log in zip(likeliest[:top], logs_of[:top], strict=True)
        ])
        for token, score, top, (likeliest, logs_of) in zip(tokens, chosen, tops, pairs, strict=True)
    ]  # fmt: skip


def unscored(token: int, bytes_of: BytesOf) -> TokenScore:
    """Return the entry of a prompt's first token, which has no probability."""
    return _text(token, bytes_of), None, []


def _text(token: int, bytes_of: BytesOf) -> str:
    return bytes_of(token).decode("latin-1")
