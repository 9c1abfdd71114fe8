"""Common parts of runners over texts: reading them in bounded processes, and padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from registry.catalog.inputs import TextInputs, TextOptions, Truncate
from registry.catalog.results import Label
from workers.engines.architectures import read_json
from workers.engines.loading import load_model, load_tokenizer
from workers.engines.prompts import PromptCanceled, PromptProcesses, Reading
from workers.engines.runner import BatchLimits, Canceled, Item, Prepared

# Models whose table of positions has room for the padding token and those before it.
_OFFSET = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})


class TextRunner:
    """Turns `TextInputs` into tokens and pads them; a subclass adds `run` and `split`.

    Texts that are too long for the model are refused, or cut if the options request it; usage
    counts the tokens that were read.
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
        self.max_length = reading_limit(folder, self.model.config, tokenizer)
        self._prompts = PromptProcesses(tokenizer, max_length=self.max_length)

    def prepare(self, request_id: str, inputs: TextInputs, options: TextOptions) -> Prepared:
        read = self.read(request_id, inputs.input, options.truncate)
        return Prepared(
            items=[Item(row, size=len(row)) for row in read.tokens],
            **self.usage(read),
        )

    def usage(self, read: Reading) -> dict[str, int]:
        """Return a request's usage and cut tokens as keyword arguments of `Prepared`."""
        tokens = sum(map(len, read.tokens))
        return {
            "prompt_tokens": tokens,
            "units": tokens,
            "cut_inputs": read.cut_inputs,
            "cut_tokens": read.cut_tokens,
        }

    def read(self, request_id: str, texts: list[str], truncate: Truncate) -> Reading:
        """Return the tokens of each text. Raises RequestRefused and Canceled."""
        try:
            return self._prompts.read_texts(request_id, texts, truncate)
        except PromptCanceled:
            raise Canceled from None

    def read_pairs(
        self, request_id: str, pairs: list[tuple[str, str]], truncate: Truncate
    ) -> Reading:
        """Return the tokens of each pair and their kinds. Raises RequestRefused and Canceled."""
        try:
            return self._prompts.read_pairs(request_id, pairs, truncate)
        except PromptCanceled:
            raise Canceled from None

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


def reading_limit(folder: Path, config: Any, tokenizer: Any) -> int:
    """Return the most tokens of a text that are read: the smallest limit in the model's files."""
    positions = int(config.max_position_embeddings)
    if config.model_type in _OFFSET:
        # Their positions are counted from the padding token on.
        positions -= int(config.pad_token_id or 0) + 1
    limits = [positions, int(tokenizer.model_max_length)]
    if (folder / "sentence_bert_config.json").is_file():
        declared = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        limits += [declared] if isinstance(declared, int) and declared > 0 else []
    return min(limits)
