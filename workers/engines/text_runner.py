"""Common parts of runners over texts: reading them in bounded processes, and padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from registry.catalog.inputs import NoOptions, TextInputs
from registry.catalog.results import Label
from workers.engines.architectures import read_json
from workers.engines.loading import load_model, load_tokenizer
from workers.engines.prompts import PromptCancelled, PromptProcesses
from workers.engines.runner import BatchLimits, Cancelled, Item, Prepared


class TextRunner:
    """Turns `TextInputs` into tokens and pads them; a subclass adds `run` and `split`.

    Texts longer than the model reads are cut, as sentence-transformers cuts them; usage counts the
    tokens that were read.
    """

    limits = BatchLimits(items=32, size=8_192)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self.model = load_model(folder, architectures, dtype=dtype, device=device)
        tokenizer = load_tokenizer(folder)
        self._pad = tokenizer.pad_token_id
        self.max_length = _max_length(folder, self.model, tokenizer)
        self._prompts = PromptProcesses(tokenizer, max_length=self.max_length)

    def prepare(self, request_id: str, inputs: TextInputs, options: NoOptions) -> Prepared:
        rows = self.encode(request_id, inputs.input)
        return Prepared(
            items=[Item(row, size=len(row)) for row in rows],
            prompt_tokens=sum(map(len, rows)),
            units=sum(map(len, rows)),
        )

    def encode(self, request_id: str, texts: list[str]) -> list[list[int]]:
        """Return the tokens of each text. Raises RequestRefused and Cancelled."""
        try:
            return self._prompts.encode_texts(request_id, texts)
        except PromptCancelled:
            raise Cancelled from None

    def encode_pairs(
        self, request_id: str, first: str, seconds: list[str]
    ) -> list[tuple[list[int], list[int]]]:
        """Return tokens and their kinds of each pair. Raises RequestRefused and Cancelled."""
        try:
            return self._prompts.encode_pairs(request_id, first, seconds)
        except PromptCancelled:
            raise Cancelled from None

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return right-padded `input_ids` and `attention_mask`, each [items, longest]."""
        longest = max(item.size for item in items)
        rows = [item.payload for item in items]
        ids = torch.tensor([row + [self._pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        device = self.model.device
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}

    def cancel(self, request_id: str) -> None:
        self._prompts.cancel(request_id)

    def close(self) -> None:
        self._prompts.close()


def ranked_labels(logits: Tensor, labels: Sequence[str]) -> list[list[Label]]:
    """Return [{label, score}, …] for each row of `logits` [rows, labels], best first; the scores
    of a row sum to 1."""
    scores, order = logits.float().softmax(dim=-1).sort(dim=-1, descending=True)
    return [
        [{"label": labels[label], "score": score} for label, score in zip(*row, strict=True)]
        for row in zip(order.tolist(), scores.tolist(), strict=True)
    ]


def label_names(model: Any) -> list[str]:
    """Return the labels of a classifier in the order of its logits."""
    names = model.config.id2label
    return [str(names[index]) for index in range(len(names))]


def _max_length(folder: Path, model: Any, tokenizer: Any) -> int:
    """Return how many tokens of a text are read: the least of what the files state."""
    limits = [int(model.config.max_position_embeddings), int(tokenizer.model_max_length)]
    if (folder / "sentence_bert_config.json").is_file():
        stated = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        limits += [stated] if isinstance(stated, int) and stated > 0 else []
    return min(limits)
