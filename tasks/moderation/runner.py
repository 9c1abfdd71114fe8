"""Serve a text classifier as a moderator: scores of all categories, and the flagged ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from assay.plugins import run
from assay.plugins.run import Item
from tasks.moderation.schema import Judged, is_harmless

THRESHOLD = 0.5


class ModerationRunner(run.TextRunner):
    """Returns one judgment for each text.

    A model with one label per text must have a harmless label, such as `safe`; any other best label
    is flagged. A model of the kind `multi_label_classification` flags every label with a score of
    0.5 or more.
    """

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(folder, architectures=architectures, device=device, dtype=dtype)
        self._labels = run.label_names(self.model)
        self._several = self.model.config.problem_type == "multi_label_classification"
        harmless = [label for label in self._labels if is_harmless(label)]
        if not self._several and len(harmless) != 1:
            self.close()
            raise run.UnsupportedModel(
                f"The classifier's labels are {', '.join(self._labels[:10])}; a moderator needs "
                "one for harmless texts, called safe."
            )
        self._categories = [label for label in self._labels if not is_harmless(label)]

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(**batch).logits.float()
        return logits.sigmoid() if self._several else logits.softmax(dim=-1)

    def split(self, output: Tensor, items: Sequence[Item]) -> list[Judged]:
        return [self._judged(row) for row in output.tolist()]

    def _judged(self, row: list[float]) -> Judged:
        scores = dict(zip(self._labels, row, strict=True))
        if self._several:
            flagged = [name for name in self._categories if scores[name] >= THRESHOLD]
        else:
            best = max(self._labels, key=lambda name: scores[name])
            flagged = [] if is_harmless(best) else [best]
        return Judged(scores={name: scores[name] for name in self._categories}, flagged=flagged)
