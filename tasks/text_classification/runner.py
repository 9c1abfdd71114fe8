"""Serve a text classifier: the score of every label, best first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import run
from assay.plugins.run import Item


class ClassifierRunner(run.LabelAdapters, run.TextRunner):
    """Returns one [{label, score}, …] for each text."""

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(folder, architectures=architectures, device=device, dtype=dtype)
        self.architectures = architectures
        self.labels = run.label_names(self.model)

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(**batch).logits
        return logits

    def split(self, output: Tensor, items: Sequence[Item]) -> list[Any]:
        return list(run.ranked_labels(output, self.labels))
