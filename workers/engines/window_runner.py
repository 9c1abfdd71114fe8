"""Common parts of runners that answer for each token of a text, however long the text is.

A text that exceeds what the model reads at once is cut into windows that share some tokens. Each
token is judged in the window in which it has more text around it.
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
# Tokens in one forward pass; longer texts take several.
MAX_TOKENS = 8_192


class WindowRunner(TextRunner):
    """An item's payload starts with its windows. A subclass adds `prepare`, `compute`, `split`."""

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
        # RoBERTa has one kind alone, whatever its tokenizer says.
        self._kinds = int(getattr(self.model.config, "type_vocab_size", 1))

    def windows(self, request_id: str, first: str, second: str | None = None) -> list[Window]:
        """Return the windows of a text, or of `first` with each part of `second`.

        Raises:
            RequestRefused: the model cannot read it.
            Canceled: `cancel` was called meanwhile.
        """
        try:
            windows = self._prompts.encode_windows(request_id, first, second, stride=self.stride)
        except PromptCanceled:
            raise Canceled from None
        if self._kinds > 1 and any(max(each.kinds, default=0) >= self._kinds for each in windows):
            raise RequestRefused("The model's tokenizer marks tokens in a way the model lacks.")
        return windows

    def compute(self, batch: dict[str, Tensor]) -> Tensor:
        """Return [windows, positions, …] for a padded batch of windows."""
        raise NotImplementedError

    def collate(self, items: Sequence[Item]) -> Any:
        """Return the windows of all items."""
        return [window for item in items for window in item.payload[0]]

    def run(self, batch: list[Window]) -> list[Tensor]:
        """Return one tensor [positions, …] for each window."""
        found: list[Tensor] = []
        for windows in _chunks(batch):
            output = self.compute(self._padded(windows)).float().cpu()
            found += [output[row, : len(each.tokens)] for row, each in enumerate(windows)]
        return found

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
    """Yield neighboring windows, as many as fit into one forward pass."""
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


def owned(windows: Sequence[Window], stride: int) -> list[range]:
    """Return the positions of each window whose tokens are judged there; each token is in one.

    Of the tokens that two windows share, the first half belongs to the first window.
    """
    found: list[range] = []
    for number, window in enumerate(windows):
        last = max(window.texts, default=0)
        places = [at for at, text in enumerate(window.texts) if text and text == last]
        start, end = (places[0], places[-1] + 1) if places else (0, 0)
        start += stride - stride // 2 if number else 0
        end -= stride // 2 if number + 1 < len(windows) else 0
        found.append(range(start, max(start, end)))
    return found
