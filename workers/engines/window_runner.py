"""Base class of runners that return a result for each token of a text of any length.

A text that is longer than the model reads at once is cut into overlapping windows. Each token is
judged in the window that shows more of the text around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workers.engines.prompts import PromptCanceled, Window
from workers.engines.protocol import RequestRefused
from workers.engines.runner import Canceled, Item
from workers.engines.text_runner import TextRunner

MAX_STRIDE = 64
# Tokens in one forward pass; longer texts take several passes.
MAX_TOKENS = 8_192


class WindowRunner(TextRunner):
    """An item's payload begins with its windows. Subclasses add `prepare`, `compute`, `split`."""

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(folder, architectures=architectures, device=device, dtype=dtype)
        self.stride = min(MAX_STRIDE, self.max_length // 8)
        # RoBERTa has only one token kind, whatever its tokenizer says.
        self._kinds = int(getattr(self.model.config, "type_vocab_size", 1))

    def windows(self, request_id: str, first: str, second: str | None = None) -> list[Window]:
        """Return the windows of `first`, or of `first` paired with each part of `second`.

        Raises:
            RequestRefused: the model cannot read the text.
            Canceled: `cancel` was called during the call.
        """
        try:
            windows = self._prompts.encode_windows(request_id, first, second, stride=self.stride)
        except PromptCanceled:
            raise Canceled from None
        if self._kinds > 1 and any(max(each.kinds, default=0) >= self._kinds for each in windows):
            raise RequestRefused("The model's tokenizer uses token types that the model lacks.")
        return windows

    def compute(self, batch: dict[str, Tensor]) -> Tensor:
        """Return [windows, positions, …] for a padded batch of windows."""
        raise NotImplementedError

    def collate(self, items: Sequence[Item]) -> Any:
        """Return the windows of all items."""
        return [window for item in items for window in item.payload[0]]

    def run(self, batch: list[Window]) -> list[Tensor]:
        """Return one tensor [positions, …] for each window."""
        tensors: list[Tensor] = []
        for windows in _chunks(batch):
            output = self.compute(self._padded(windows)).float().cpu()
            tensors += [output[row, : len(each.tokens)] for row, each in enumerate(windows)]
        return tensors

    def _padded(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        lengths = [len(each.tokens) for each in windows]
        longest = max(lengths)

        def padded(rows: list[list[int]], fill: int) -> Tensor:
            filled = [row + [fill] * (longest - len(row)) for row in rows]
            return torch.tensor(filled).to(self.model.device)

        batch = {
            "input_ids": padded([each.tokens for each in windows], self._pad),
            "attention_mask": padded([[1] * length for length in lengths], 0),
        }
        if self._kinds > 1:
            batch["token_type_ids"] = padded([each.kinds for each in windows], 0)
        return batch


def _chunks(windows: Sequence[Window]) -> Iterator[Sequence[Window]]:
    """Yield runs of neighboring windows that each fit into one forward pass."""
    start = 0
    while start < len(windows):
        end, longest = start, 0
        while end < len(windows):
            longest = max(longest, len(windows[end].tokens))
            if end > start and longest * (end - start + 1) > MAX_TOKENS:
                break
            end += 1
        yield windows[start:end]
        start = end


def owned_positions(windows: Sequence[Window], stride: int) -> list[range]:
    """Return, for each window, the range of positions that it judges; ranges do not overlap.

    Of the tokens that two windows share, the first half belongs to the first window.
    """
    ranges: list[range] = []
    for number, window in enumerate(windows):
        last = max(window.texts, default=0)
        positions = [at for at, text in enumerate(window.texts) if text and text == last]
        start, end = (positions[0], positions[-1] + 1) if positions else (0, 0)
        start += stride - stride // 2 if number else 0
        end -= stride // 2 if number + 1 < len(windows) else 0
        ranges.append(range(start, max(start, end)))
    return ranges
