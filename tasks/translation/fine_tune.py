"""Train an encoder with a decoder, all weights, to translate texts."""

from __future__ import annotations

from typing import Any

from tasks.translation import TASK
from workers.hyperparameters import SequenceSettings
from workers.trainers.protocol import Progress, TrainingRequest, TrainingResult
from workers.trainers.sequence_training import fit_sequences
from workers.trainers.training import parse_settings, read_rows


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train; the epoch with the least loss on the validation rows is kept.

    Raises:
        BadMaterial: Rows, settings or base cannot be used.
        Canceled: `progress` said so.
    """
    return fit_sequences(
        request,
        progress,
        pairs=read_pairs(request.train_file),
        settings=parse_settings(SequenceSettings, request.hyperparameters),
        architectures=TASK.architectures,
    )


def read_pairs(path: Any) -> list[tuple[str, str]]:
    """Return text and translation of each row. Raises BadMaterial."""
    rows = read_rows(
        path,
        lambda row: all(isinstance(row.get(key), str) and row[key] for key in ("source", "target")),
        '{"source": "…", "target": "…"}',
    )
    return [(row["source"], row["target"]) for row in rows]
