"""Embed texts with a version through the engine and the runner that serve it. Knows no Django."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from registry.catalog.inputs import NoOptions, TextInputs
from workers.trainers.evaluation import Outcome, ask
from workers.trainers.protocol import BadMaterial, Judge, Progress

TEXTS_PER_REQUEST = 16
Vectors = npt.NDArray[np.float32]


def embed(model: Judge, texts: Sequence[str], progress: Progress) -> Vectors:
    """Return float32 vectors [texts, dimensions] of length 1.

    Raises:
        BadMaterial: the model cannot embed a text, or returns something else than vectors.
        Cancelled: `progress` said so.
    """
    starts = range(0, len(texts), TEXTS_PER_REQUEST)
    parts = [list(texts[start : start + TEXTS_PER_REQUEST]) for start in starts]
    outcomes = ask(model, [(TextInputs(input=part), NoOptions()) for part in parts], progress)
    rows = [_rows(part, outcome) for part, outcome in zip(parts, outcomes, strict=True)]
    vectors = np.array([row for found in rows for row in found], dtype=np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise BadMaterial(f"{model.name} does not return one vector of finite numbers for a text.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalized: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return normalized


def _rows(texts: Sequence[str], outcome: Outcome) -> list[list[float]]:
    if len(outcome.results) != len(texts):
        raise BadMaterial(f"{len(outcome.results)} vectors came for {len(texts)} texts.")
    return outcome.results
