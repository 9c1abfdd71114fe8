"""Embed texts with a version through the engine and the runner that serve it. Knows no Django."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.catalog.inputs import TextInputs, TextOptions
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
    asked = [(TextInputs(input=part), TextOptions()) for part in parts]
    outcomes = ask(model, asked, progress, _as_arrays)
    rows = [row for part, found in zip(parts, outcomes, strict=True) for row in _rows(part, found)]
    alike = len({row.shape for row in rows}) == 1
    vectors = np.stack(rows) if alike else np.empty(0, dtype=np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise BadMaterial(f"{model.name} does not return one vector of finite numbers for a text.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalized: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return normalized


def _as_arrays(results: list[Any]) -> list[Any]:
    """Return the results as float32, which takes an eighth of the memory of Python's numbers; none
    if they are no numbers."""
    try:
        return [np.asarray(row, dtype=np.float32) for row in results]
    except (TypeError, ValueError):
        return []


def _rows(texts: Sequence[str], outcome: Outcome) -> list[Vectors]:
    if len(outcome.results) != len(texts):
        raise BadMaterial(f"{len(outcome.results)} vectors came for {len(texts)} texts.")
    return outcome.results
