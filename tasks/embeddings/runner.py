"""Serve a sentence encoder: one vector of unit length for each text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import declare, run
from assay.plugins.run import Item
from tasks.embeddings.endpoints import EncoderInputs

_POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


class EmbeddingsRunner(run.TextRunner):
    """Pools vectors as the model's sentence-transformers files state; by the mean without them."""

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._pooling = _pooling(folder)
        self._tokenizer = _sha256(folder / "tokenizer.json")
        # Special tokens before and after each text; read at the first request with token IDs.
        self._around: list[int] = []
        super().__init__(folder, architectures=architectures, device=device, dtype=dtype)

    def prepare(
        self, request_id: str, inputs: declare.TextInputs, options: declare.TextOptions
    ) -> run.Prepared:
        if not isinstance(inputs, EncoderInputs) or not inputs.tokens:
            return super().prepare(request_id, inputs, options)
        if inputs.tokenizer != self._tokenizer:
            raise run.RequestRefused(
                "tokenizer is not the SHA-256 of this deployment's tokenizer.json, so that the "
                "tokens could mean other text; they were not read. Send the text instead.",
                code="wrong_tokenizer",
            )
        # An empty text has the model's special tokens alone.
        self._around = self._around or self.read(request_id, [""], "none").tokens[0]
        if len(self._around) != 2:
            raise run.RequestRefused(
                "This deployment's tokenizer does not put one token before and one after a text, "
                "so that tokens cannot be read. Send the text instead.",
                code="wrong_tokenizer",
            )
        first, last = self._around
        special = {first, last, self._pad}
        rows = []
        for number, tokens in enumerate(inputs.tokens, 1):
            if max(tokens) >= self.model.config.vocab_size or not special.isdisjoint(tokens):
                raise run.RequestRefused(
                    f"input {number} has a special token, or one that the model does not know. "
                    "Leave special tokens out; the model's own are added.",
                    code="invalid_tokens",
                )
            rows.append([first, *tokens, last])
            if len(rows[-1]) > self.max_length:
                raise run.RequestRefused(
                    f"This model's maximum context length is {self.max_length:,} tokens; input "
                    f"{number} has {len(rows[-1]):,}. Shorten it, or send it in parts.",
                    code="context_length_exceeded",
                )
        count = sum(map(len, rows))
        items = [Item(row, size=len(row)) for row in rows]
        return run.Prepared(items=items, prompt_tokens=count, units=count)

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        states = self.model(**batch).last_hidden_state.float()
        return _pooled(states, batch["attention_mask"], self._pooling)

    def split(self, output: Tensor, items: Sequence[Item]) -> list[Any]:
        vectors: list[Any] = output.cpu().tolist()
        return vectors


def _sha256(file: Path) -> str:
    """Return the SHA-256 of a file; empty if there is none."""
    if not file.is_file():
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _pooling(folder: Path) -> str:
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    modes = [
        name for name, on in run.read_json(path).items() if name.startswith("pooling_mode_") and on
    ]
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise run.UnsupportedModel(
            f"1_Pooling/config.json pools by {modes}, which is not supported."
        )
    return _POOLING[modes[0]]


def _pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Return unit vectors [rows, size] from hidden states [rows, positions, size]."""
    if pooling == "cls":
        vectors = states[:, 0]
    else:
        weights = mask.unsqueeze(-1).to(states.dtype)
        vectors = (states * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(vectors, dim=-1)
