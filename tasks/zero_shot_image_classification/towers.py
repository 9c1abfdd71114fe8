"""The two towers of a CLIP or SigLIP model: vectors of images and of texts in one space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from assay.plugins import run

_CHUNK = 64


class Towers:
    """A loaded model with its image processor and tokenizer.

    Attributes:
        model: The transformers model.
        sigmoid: True for SigLIP, which scores each pair of image and text separately.
        max_tokens: Maximum tokens of a text; the rest is cut.

    Raises:
        UnsupportedModel: the folder contains no such model, or its parts do not fit each other.
    """

    def __init__(
        self,
        folder: Path,
        architectures: Sequence[str],
        *,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self.processor = run.load_image_processor(folder)
        self.tokenizer = run.load_tokenizer(folder)
        self.model: Any = run.load_model(folder, architectures, dtype=dtype, device=device)
        text = self.model.config.text_config
        self.sigmoid = hasattr(self.model, "logit_bias")
        self.max_tokens = min(
            int(text.max_position_embeddings), int(self.tokenizer.model_max_length)
        )
        self._pad = self.tokenizer.pad_token_id
        if len(self.tokenizer) > text.vocab_size or self._pad is None:
            raise run.UnsupportedModel(
                f"The tokenizer has {len(self.tokenizer)} tokens and the padding token "
                f"{self._pad}; the model reads {text.vocab_size} tokens."
            )

    def padded(self, rows: Sequence[list[int]]) -> dict[str, Tensor]:
        """Return `input_ids` of texts, and `attention_mask` if the model was trained with one.

        SigLIP pads every text to full length, as in its training.
        """
        longest = self.max_tokens if self.sigmoid else max(map(len, rows))
        ids = torch.tensor([[*row, *[self._pad] * (longest - len(row))] for row in rows])
        batch = {"input_ids": ids}
        if not self.sigmoid:
            batch["attention_mask"] = torch.tensor(
                [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
            )
        return {name: each.to(self.model.device) for name, each in batch.items()}

    def text_vectors(self, rows: Sequence[list[int]]) -> Tensor:
        """Return unit vectors [texts, size] of tokens."""
        parts = [
            normalize(pooled(self.model.get_text_features(**self.padded(rows[at : at + _CHUNK]))))
            for at in range(0, len(rows), _CHUNK)
        ]
        return torch.cat(parts)

    def image_vectors(self, pixel_values: Tensor) -> Tensor:
        """Return unit vectors [images, size] of pixels."""
        values = pixel_values.to(self.model.device, self.model.dtype)
        return normalize(pooled(self.model.get_image_features(pixel_values=values)))

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return the scores of all pairs, [images, texts], from their vectors."""
        fits = images @ texts.T * self.model.logit_scale.float().exp()
        return fits + self.model.logit_bias.float() if self.sigmoid else fits


def pooled(output: Any) -> Tensor:
    """Return the vectors in a tower's output, in single precision."""
    vectors: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return vectors.float()
