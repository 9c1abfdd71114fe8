"""Functions of the Python standard library, to pretrain a small code model; and the model's base, a
configuration without a tokenizer."""

from __future__ import annotations

import ast
import json
import struct
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from assay_demo.data.materials import HELDOUT_OF_256, SKIPPED, stable_hash

MIN_CHARACTERS, MAX_CHARACTERS = 120, 1_200
# A million parameters with a vocabulary of 2,048.
CONFIGURATION = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "vocab_size": 2_048,
    "dtype": "float32",
}


def python_functions(
    *, limit: int = 6_000, heldout_limit: int = 200, library: Path | None = None
) -> tuple[list[str], list[str]]:
    """Return training and test functions, complete and dedented.

    Each top-level module or package is in only one of the two lists, chosen by a stable hash of its
    name, and no text occurs twice. Order and choice depend only on the sources.
    """
    root = library or Path(sysconfig.get_paths()["stdlib"])
    functions: dict[bool, list[str]] = {True: [], False: []}
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        relative = PurePosixPath(path.relative_to(root).as_posix())
        if SKIPPED.intersection(relative.parts):
            continue
        heldout = stable_hash(PurePosixPath(relative.parts[0]).stem)[0] < HELDOUT_OF_256
        for source in _functions(path):
            if MIN_CHARACTERS <= len(source) <= MAX_CHARACTERS and source not in seen:
                seen.add(source)
                functions[heldout].append(source)
    train, test = (sorted(functions[side], key=stable_hash) for side in (False, True))
    return train[:limit], test[:heldout_limit]


def write_configuration(folder: Path) -> Path:
    """Write a base that is only a configuration: its weights are a single unused number."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGURATION, indent=2) + "\n")
    header = json.dumps({"unused": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + struct.pack("<f", 0.0)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def _functions(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (SyntaxError, UnicodeDecodeError):
        return
    # Split lines like the parser does; `splitlines` also ends a line at a form feed.
    lines = text.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
            body = "\n".join(line.rstrip() for line in lines[start : node.end_lineno])
            yield textwrap.dedent(body).strip("\n") + "\n"
