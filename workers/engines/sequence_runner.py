"""Runner of tasks that write a text from a text with an encoder-decoder model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from registry.catalog.sequences import SequenceInputs, SequenceOptions
from workers.engines.architectures import UnsupportedModel
from workers.engines.loading import load_model, load_tokenizer
from workers.engines.prompts import PromptCanceled, PromptProcesses
from workers.engines.runner import BatchLimits, Canceled, Item, Prepared

# Limit in tokens for a model whose files set none.
MAX_LENGTH = 512
# A translation is seldom more than twice as long; short texts get a few tokens more.
_GROWTH, _SPARE = 2, 16


@dataclass(frozen=True, slots=True)
class Writing:
    """Bounds of the written text. Items of one batch share them."""

    beams: int
    new_tokens: int


class SequenceRunner:
    """Writes one text for each text, by greedy or beam search of a bounded length.

    A text that is too long for the model is refused, or cut if the request allows it. The model's
    own generation settings are not used, except for its special tokens.
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
            raise UnsupportedModel("config.json must set decoder_start_token_id and eos_token_id.")
        self.max_length = _max_length(config, self.tokenizer)
        self._prompts = PromptProcesses(self.tokenizer, max_length=self.max_length)

    def prepare(
        self, request_id: str, inputs: SequenceInputs, options: SequenceOptions
    ) -> Prepared:
        """Tokenize the text of a request. Its units are characters.

        Raises:
            RequestRefused: the text is too long for the model, and must not be cut.
            Canceled: `cancel` was called during the call.
        """
        new_tokens = options.max_new_tokens
        try:
            read = self._prompts.read_texts(request_id, [inputs.text], options.truncate)
        except PromptCanceled:
            raise Canceled from None
        (tokens,) = read.tokens
        limit = min(new_tokens or _GROWTH * len(tokens) + _SPARE, self.max_length)
        # Rounded up, so that requests without a limit of their own share batches.
        rounded = limit if new_tokens else min(-(-limit // 32) * 32, self.max_length)
        return Prepared(
            items=[Item(tokens, size=len(tokens), bucket=Writing(options.num_beams, rounded))],
            prompt_tokens=len(tokens),
            units=len(inputs.text),
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
        sequences: list[list[int]] = self.model.generate(
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
        return sequences

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
    """Return the most tokens that are read or written: the smallest limit in the model's files."""
    declared = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    limits = [int(each) for each in declared if isinstance(each, int) and each > 1]
    return min([*limits, int(tokenizer.model_max_length), *([] if limits else [MAX_LENGTH])])
