"""Embed texts with a version through the engine and the runner that serve it. Without Django."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import transformers

from registry.catalog.inputs import TextInputs, TextOptions
from workers.engines.architectures import UnsupportedModel
from workers.engines.loading import load_tokenizer
from workers.engines.prompts import PromptProcesses
from workers.engines.protocol import RequestRefused
from workers.engines.text_runner import reading_limit
from workers.trainers.evaluation import Outcome, ask
from workers.trainers.protocol import BadMaterial, Judge, Progress

TEXTS_PER_REQUEST = 16
TEXTS_MEASURED = 256
Vectors = npt.NDArray[np.float32]


class TextWindow:
    """Token counts of texts for an embedding model, and the model's `limit` in tokens. Use it as a
    context manager.

    Raises:
        BadMaterial: the model's tokenizer cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        try:
            tokenizer = load_tokenizer(folder)
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            self.limit = reading_limit(folder, config, tokenizer)
            self._prompts = PromptProcesses(tokenizer)
        except (UnsupportedModel, OSError, ValueError) as error:
            raise BadMaterial(f"The embedding model cannot be used. {error}") from error

    def __enter__(self) -> TextWindow:
        return self

    def __exit__(self, *error: object) -> None:
        self._prompts.close()

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text. Raises BadMaterial if the tokenizer fails."""
        lengths: list[int] = []
        try:
            for start in range(0, len(texts), TEXTS_MEASURED):
                part = list(texts[start : start + TEXTS_MEASURED])
                lengths += self._prompts.lengths("chunks", part)
        except RequestRefused as error:
            raise BadMaterial(f"A text cannot be read. {error}") from error
        return lengths


def embed(model: Judge, texts: Sequence[str], progress: Progress) -> Vectors:
    """Return float32 vectors [texts, dimensions] of length 1.

    Raises:
        BadMaterial: the model cannot embed a text, or its results are not vectors.
        Canceled: `progress` requested the end.
    """
    starts = range(0, len(texts), TEXTS_PER_REQUEST)
    parts = [list(texts[start : start + TEXTS_PER_REQUEST]) for start in starts]
    requests = [(TextInputs(input=part), TextOptions()) for part in parts]
    outcomes = ask(model, requests, progress, _as_arrays)
    rows = [row for pair in zip(parts, outcomes, strict=True) for row in _rows(*pair)]
    alike = len({row.shape for row in rows}) == 1
    vectors = np.stack(rows) if alike else np.empty(0, dtype=np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise BadMaterial(f"{model.name} does not return one vector of finite numbers for a text.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalized: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return normalized


def _as_arrays(results: list[Any]) -> list[Any]:
    """Return the results as float32, which takes an eighth of the memory of Python's numbers;
    return an empty list if they are not numbers."""
    try:
        return [np.asarray(row, dtype=np.float32) for row in results]
    except (TypeError, ValueError):
        return []


def _rows(texts: Sequence[str], outcome: Outcome) -> list[Vectors]:
    if len(outcome.results) != len(texts):
        raise BadMaterial(f"The model made {len(outcome.results)} vectors of {len(texts)} texts.")
    return outcome.results
