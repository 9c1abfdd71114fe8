"""Small encoders with random weights and MiniLM's tokenizer, with any head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LENGTH = 64


def save_encoder(minilm: Path, architecture: str, folder: Path, **settings: Any) -> Path:
    """Write a BERT of two small layers that reads 64 tokens; return `folder`."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    torch.manual_seed(17)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        initializer_range=0.5,
        **settings,
    )
    getattr(transformers, architecture)(config).save_pretrained(folder)
    tokenizer.model_max_length = LENGTH
    tokenizer.save_pretrained(folder)
    return folder
