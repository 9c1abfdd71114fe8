"""Serve a version: load its files, and score texts in batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import vstack

from assay.plugins import declare, run
from assay.plugins.run import Item
from language_identification.ngrams import features, load, softmax

MAX_CHARACTERS = 20_000


class LanguageRunner(run.BaseRunner):
    """Returns one [{label, score}, …] for each text, best first. Ignores device and dtype: numpy
    is fast enough for one multiplication."""

    limits = run.BatchLimits(items=256, size=1_000_000)

    def __init__(
        self, folder: Path, *, architectures: Sequence[str], device: Any, dtype: Any
    ) -> None:
        self._weights, self._bias, self._labels = load(folder, architectures)
        if not self._labels:
            raise run.UnsupportedModel("The model has no languages yet; fine-tune it first.")

    def prepare(
        self, request_id: str, inputs: declare.TextInputs, options: declare.NoOptions
    ) -> run.Prepared:
        texts = inputs.input
        if any(len(text) > MAX_CHARACTERS for text in texts):
            raise run.RequestRefused(f"Each input must have 1 to {MAX_CHARACTERS:,} characters.")
        rows = features(texts, self._weights.shape[1])
        return run.Prepared(
            items=[Item(rows[index], size=len(text)) for index, text in enumerate(texts)],
            units=sum(map(len, texts)),
        )

    def collate(self, items: Sequence[Item]) -> Any:
        return vstack([item.payload for item in items])

    def run(self, batch: Any) -> np.ndarray:
        return softmax(batch @ self._weights.T + self._bias)

    def split(self, output: np.ndarray, items: Sequence[Item]) -> list[Any]:
        return [
            [
                {"label": self._labels[index], "score": float(scores[index])}
                for index in np.argsort(-scores, kind="stable")
            ]
            for scores in output
        ]
