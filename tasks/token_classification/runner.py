"""Serve a token classifier: the labeled passages of a text of any length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.plugins import run
from tasks.token_classification.entities import Judged, entities
from tasks.token_classification.schema import Entity, TokenInputs, TokenOptions


class TokenRunner(run.LabelAdapters, run.WindowRunner):
    """Returns one list of passages, or tokens, for each text."""

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

    def prepare(self, request_id: str, inputs: TokenInputs, options: TokenOptions) -> run.Prepared:  # type: ignore[override]
        windows = self.windows(request_id, inputs.text)
        tokens = sum(len(each.tokens) for each in windows)
        return run.Prepared(
            items=[run.Item((windows, inputs.text, options), size=tokens)],
            prompt_tokens=tokens,
            units=tokens,
        )

    def compute(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.model(**batch).logits.float().softmax(dim=-1)
        return scores

    def split(self, output: list[Tensor], items: Sequence[run.Item]) -> list[list[Entity]]:
        rows = iter(output)
        results: list[list[Entity]] = []
        for item in items:
            windows, text, options = item.payload
            judged = self._judged(windows, [next(rows) for _ in windows])
            results.append(
                entities(
                    text,
                    judged,
                    self.labels,
                    strategy=options.aggregation_strategy,
                    ignored=options.ignore_labels,
                )
            )
        return results

    def _judged(self, windows: Sequence[run.TextWindow], scores: Sequence[Tensor]) -> Judged:
        """Merge overlapping windows, so that each token of the text occurs once."""
        starts: list[int] = []
        ends: list[int] = []
        words: list[int] = []
        rows: list[Any] = []
        for window, places, each in zip(
            windows, run.owned_tokens(windows, self.stride), scores, strict=True
        ):
            keep = [at for at in places if window.starts[at] < window.ends[at]]
            starts += [window.starts[at] for at in keep]
            ends += [window.ends[at] for at in keep]
            words += [window.words[at] for at in keep]
            rows.append(each.numpy()[keep])
        return Judged(starts, ends, words, np.concatenate(rows))
