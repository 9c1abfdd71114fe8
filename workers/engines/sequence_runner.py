"""Common parts of runners that write a text from a text, by an encoder with a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from registry.catalog.inputs import Truncate
from workers.engines.architectures import UnsupportedModel
from workers.engines.loading import load_model, load_tokenizer
from workers.engines.prompts import PromptCanceled, PromptProcesses
from workers.engines.runner import BatchLimits, Canceled, Item, Prepared

# Tokens of a model that states no limit of its own.
MAX_LENGTH = 512
# A text is seldom more than twice as long in another language; a few more for short ones.
_GROWTH, _SPARE = 2, 16


@dataclass(frozen=True, slots=True)
class Writing:
    """Bounds on what is written. Items of one batch share them."""

    beams: int
    new_tokens: int


class SequenceRunner:
    """Writes one text for each text, by greedy or beam search of a bounded length.

    A text longer than the model reads is refused, or cut where the request says so. What the
    model's own files say about generation is not used, except for its special tokens.
    """

    limits = BatchLimits(items=16, size=4_096)

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self.model = load_model(folder, architectures, dtype=dtype, device=device)
        self.tokenizer = load_tokenizer(folder)
        config = self.model.config
        if config.decoder_start_token_id is None or config.eos_token_id is None:
            raise UnsupportedModel("config.json names no first and last token of what is written.")
        self.max_length = _max_length(config, self.tokenizer)
        self._prompts = PromptProcesses(self.tokenizer, max_length=self.max_length)

    def written(
        self,
        request_id: str,
        text: str,
        *,
        truncate: Truncate,
        beams: int,
        new_tokens: int | None,
    ) -> Prepared:
        """Return the request that reads `text`. Its units are characters.

        Raises:
            RequestRefused: the text is longer than the model reads, and must not be cut.
            Canceled: `cancel` was called meanwhile.
        """
        try:
            read = self._prompts.read_texts(request_id, [text], truncate)
        except PromptCanceled:
            raise Canceled from None
        (tokens,) = read.tokens
        limit = min(new_tokens or _GROWTH * len(tokens) + _SPARE, self.max_length)
        # Rounded up, so that requests without a limit of their own share batches.
        rounded = limit if new_tokens else min(-(-limit // 32) * 32, self.max_length)
        return Prepared(
            items=[Item(tokens, size=len(tokens), bucket=Writing(beams, rounded))],
            prompt_tokens=len(tokens),
            units=len(text),
            cut_inputs=read.cut_inputs,
            cut_tokens=read.cut_tokens,
        )

    def collate(self, items: Sequence[Item]) -> tuple[dict[str, Tensor], Writing]:
        longest = max(item.size for item in items)
        rows = [item.payload for item in items]
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        device = self.model.device
        writing: Writing = items[0].bucket  # type: ignore[assignment]
        return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}, writing

    def run(self, batch: tuple[dict[str, Tensor], Writing]) -> list[list[int]]:
        tensors, writing = batch
        config = self.model.config
        found: list[list[int]] = self.model.generate(
            **tensors,
            generation_config=GenerationConfig(
                decoder_start_token_id=config.decoder_start_token_id,
                eos_token_id=config.eos_token_id,
                pad_token_id=self.tokenizer.pad_token_id,
                bos_token_id=getattr(config, "bos_token_id", None),
                max_new_tokens=writing.new_tokens,
                num_beams=writing.beams,
                do_sample=False,
            ),
        ).tolist()
        return found

    def split(self, output: list[list[int]], items: Sequence[Item]) -> list[str]:
        return [
            str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
            for tokens in output
        ]

    def cancel(self, request_id: str) -> None:
        self._prompts.cancel(request_id)

    def close(self) -> None:
        self._prompts.close()


def _max_length(config: Any, tokenizer: Any) -> int:
    """Return how many tokens are read and written at most: the least of what the files state."""
    stated = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    limits = [int(each) for each in stated if isinstance(each, int) and each > 1]
    return min([*limits, int(tokenizer.model_max_length), *([] if limits else [MAX_LENGTH])])
