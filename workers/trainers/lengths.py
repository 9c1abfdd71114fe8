"""Rows that are too long for a model: every recipe counts them and warns people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workers.engines.prompts import PromptProcesses
from workers.trainers.protocol import Progress

# Captions per request to a prompt process.
_CHUNK = 1_000


def token_lengths(
    tokenizer: Any, texts: Sequence[str], seconds: Sequence[str] | None = None
) -> list[int]:
    """Return the number of tokens of each text, or of each pair of texts."""
    inputs = (list(texts),) if seconds is None else (list(texts), list(seconds))
    return [len(ids) for ids in tokenizer(*inputs, truncation=False, verbose=False)["input_ids"]]


def read_captions(
    tokenizer: Any, max_length: int, captions: Sequence[str]
) -> tuple[list[list[int]], set[str]]:
    """Return the tokens of each caption, cut to `max_length`, and the captions that were cut."""
    prompts = PromptProcesses(tokenizer, max_length=max_length)
    tokens: list[list[int]] = []
    cut: set[str] = set()
    try:
        for at in range(0, len(captions), _CHUNK):
            part = list(captions[at : at + _CHUNK])
            read = prompts.read_texts("captions", part, "end")
            tokens += read.tokens
            cut.update(part[place] for place in read.cut)
    finally:
        prompts.close()
    return tokens, cut


def warn_of_cut(progress: Progress, cut: int, rows: int, read: str) -> None:
    """Warn people that `cut` of the rows lost a part; `read` describes the part that is read."""
    if cut:
        progress.warn(f"{cut} of {rows} rows are longer than the limit: {read}.")
