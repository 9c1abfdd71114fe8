"""A CLIP and a SigLIP of random weights that read letters and images of 32 × 32 pixels."""

from __future__ import annotations

import json
from pathlib import Path

SIDE = 32
TOKENS = 24


def save_tiny_clip(folder: Path, architecture: str = "CLIPModel") -> Path:
    """Write a random model with processor and tokenizer."""
    import torch
    import transformers

    torch.manual_seed(5)
    tokenizer = _letters()
    small = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {
        **small,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**small, "image_size": SIDE, "patch_size": 8}
    kind = getattr(transformers, architecture)
    extra = {"projection_dim": 16} if architecture == "CLIPModel" else {}
    config = kind.config_class(
        text_config={**text, **extra}, vision_config={**vision, **extra}, **extra
    )
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    name = architecture.removesuffix("Model")
    size = {"height": SIDE, "width": SIDE}
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": f"{name}ImageProcessor",
                "size": size if name == "Siglip" else {"shortest_edge": SIDE},
                "crop_size": size,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            }
        )
    )
    return folder


def _letters() -> object:
    import transformers

    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{each}</w>" for each in letters), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[],
        model_max_length=TOKENS,
    )
