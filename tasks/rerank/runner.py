"""Serve a cross-encoder: one score between 0 and 1 for each document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import declare, run
from assay.plugins.run import Item
from tasks.rerank.schema import RerankInputs


class RerankRunner(run.TextRunner):
    """Scores each document for the query: the sigmoid of the model's one logit.

    A pair that exceeds the model's context is refused, or loses tokens of its longer text if the
    options allow it; usage counts the remaining tokens.
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
        if self.model.config.num_labels != 1:
            self.close()
            raise run.UnsupportedModel(
                f"The model has {self.model.config.num_labels} labels; a reranker has one."
            )
        # Models without token types ignore the marks of the pair's second half.
        self._kinds = int(getattr(self.model.config, "type_vocab_size", 0) or 0)

    def prepare(  # type: ignore[override]
        self, request_id: str, inputs: RerankInputs, options: declare.TextOptions
    ) -> run.Prepared:
        pairs = [(inputs.query, document) for document in inputs.documents]
        reading = self.read_pairs(request_id, pairs, options.truncate)
        if self._kinds > 1 and any(kinds and max(kinds) >= self._kinds for kinds in reading.kinds):
            raise run.RequestRefused("The model's tokenizer uses token types that the model lacks.")
        return run.Prepared(
            items=[
                Item((tokens, kinds), size=len(tokens))
                for tokens, kinds in zip(reading.tokens, reading.kinds, strict=True)
            ],
            **self.usage(reading),
        )

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` and, where the model has them, `token_type_ids`."""
        batch = super().collate([Item(item.payload[0], size=item.size) for item in items])
        if self._kinds > 1:
            longest = batch["input_ids"].shape[1]
            rows = [item.payload[1] for item in items]
            kinds = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
            batch["token_type_ids"] = kinds.to(self.model.device)
        return batch

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.model(**batch).logits[:, 0].float().sigmoid()
        return scores

    def split(self, output: Tensor, items: Sequence[Item]) -> list[Any]:
        scores: list[Any] = output.cpu().tolist()
        return scores
