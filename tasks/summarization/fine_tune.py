"""Train an encoder with a decoder, all weights, to summarize texts."""

from __future__ import annotations

from typing import Any

from assay.plugins import declare, run
from tasks.summarization import TASK


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train; the epoch with the least loss on the validation rows is kept.

    Raises:
        BadMaterial: Rows, settings or base cannot be used.
        Cancelled: `progress` said so.
    """
    return run.fit_sequences(
        request,
        progress,
        pairs=read_pairs(request.train_file),
        settings=run.parse_settings(declare.SequenceSettings, request.hyperparameters),
        architectures=TASK.architectures,
    )


def read_pairs(path: Any) -> list[tuple[str, str]]:
    """Return text and summary of each row. Raises BadMaterial."""
    rows = run.read_rows(
        path,
        lambda row: all(isinstance(row.get(key), str) and row[key] for key in ("text", "summary")),
        '{"text": "…", "summary": "…"}',
    )
    return [(row["text"], row["summary"]) for row in rows]
