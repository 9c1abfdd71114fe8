"""Serve a sentence encoder: one vector of unit length for each text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import run
from assay.plugins.run import Item

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
        super().__init__(folder, architectures=architectures, device=device, dtype=dtype)

    def run(self, batch: dict[str, Tensor]) -> Tensor:
        states = self.model(**batch).last_hidden_state.float()
        return _pooled(states, batch["attention_mask"], self._pooling)

    def split(self, output: Tensor, items: Sequence[Item]) -> list[Any]:
        vectors: list[Any] = output.cpu().tolist()
        return vectors


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
