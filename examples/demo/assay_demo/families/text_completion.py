"""Code completion: a configuration becomes a small model of Python, pretrained by Assay."""

from __future__ import annotations

import json
from pathlib import Path

from assay_demo.clients import openai_client
from assay_demo.data.python_functions import python_functions, write_configuration
from assay_demo.families.showcase import Gate, Showcase, Training
from assay_demo.families.steps import Base, Data
from assay_demo.stage import Stage

PREFIX = "def __len__(self):\n    return len("
SUFFIX = ")\n"


def _base(stage: Stage) -> Path:
    return write_configuration(stage.folder / "bases" / "python-configuration")


def _lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def _call(stage: Stage, model: str) -> str:
    """Fill in the middle with OpenAI's client."""
    client = openai_client(stage)
    answer = client.completions.create(
        model=model, prompt=PREFIX, suffix=SUFFIX, max_tokens=12, temperature=0
    )
    stage.expect(answer.usage is not None, f"{model} states its usage")
    return f"{model} fills {PREFIX!r} … {SUFFIX!r} with {answer.choices[0].text!r}."


SHOWCASE = Showcase(
    task="text-completion",
    model="python-completer",
    description="Completes Python functions, and fills gaps in them.",
    base=Base(
        "python-configuration",
        "text-completion",
        "A configuration of a million parameters, without tokenizer and weights.",
        "Made by Assay (examples/demo/assay_demo/data/python_functions.py)",
        "Apache-2.0",
        _base,
    ),
    training=Training(
        "pretrain",
        {"batch_size": 8, "max_steps": 420, "learning_rate": 0.004, "validation_fraction": 0.02},
        Data(
            "python-functions-train",
            "PSF-2.0",
            lambda stage: _lines(python_functions()[0]),
            suffix=".jsonl",
        ),
    ),
    test=Data(
        "python-functions-test",
        "PSF-2.0",
        lambda stage: _lines(python_functions()[1]),
        suffix=".jsonl",
    ),
    gate=Gate(
        "bits_per_byte",
        "<=",
        2.2,
        "Byte 5-grams of 0.4 MB reach 2.35 on 40 functions; a model must be clearly better.",
    ),
    call=_call,
    demonstration=True,
    generates=True,
)
