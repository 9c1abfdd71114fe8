"""Train an encoder with a decoder, all weights, to write a translation of a text."""

from __future__ import annotations

from assay.plugins import run
from tasks.translation import TASK


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train, and keep the epoch with the lowest loss on the validation rows.

    Raises:
        BadMaterial: Rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    return run.fit_sequences(
        request, progress, columns=("source", "target"), architectures=TASK.architectures
    )
