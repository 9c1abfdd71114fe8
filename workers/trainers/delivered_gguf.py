"""Keep a GGUF as delivered, for llama.cpp, with the tokenizer and config extracted from it.

Assay renders and tokenizes prompts from these readable files, and the server gets tokens. This
module does not load the weights.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.engines.architectures import GGUF_ARCHITECTURES
from workers.trainers.convert import gguf_config, portable, raise_if_canceled, tokenizer_of
from workers.trainers.protocol import BadMaterial, Progress


def keep_gguf(
    source: Path, output: Path, architectures: Sequence[str], progress: Progress
) -> dict[str, Any]:
    """Fill `output`, which is empty or missing, from a delivery of one GGUF in `source`.

    Returns:
        As `convert`, and `quantization`: the type of most of its weights, such as `Q4_K`.

    Raises:
        BadMaterial: There is not exactly one GGUF, it is broken, or the architecture not allowed.
        Canceled: `progress` requested the end between two steps.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file() and not path.is_symlink())
    ggufs = [path for path in files if path.suffix.lower() == ".gguf"]
    if len(ggufs) != 1:
        raise BadMaterial(
            f"The delivery holds {len(ggufs)} GGUF files; keeping one as delivered needs exactly 1."
        )
    path = ggufs[0]
    progress.log(f"Reading the header of {path.name}.")
    config = gguf_config(path)
    name = GGUF_ARCHITECTURES[config.model_type]
    if name not in architectures:
        raise BadMaterial(f"{path.name} holds a {name}, which this task does not support.")
    raise_if_canceled(progress)
    parameters, quantization = tensors_of(path)
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, output / "model.gguf")
    raise_if_canceled(progress)
    tokenizer = tokenizer_of(path, int(config.max_position_embeddings))
    tokenizer.save_pretrained(output)
    clean = type(config)(**portable(config.to_dict()))
    clean.architectures = [name]
    clean.save_pretrained(output)
    progress.log(f"Kept {parameters:,} parameters in {quantization}.")
    return {
        "architecture": name,
        "parameters": parameters,
        "dtype": quantization,
        "quantization": quantization,
        "source_format": "gguf",
        "notes": f"{path.name} is kept byte for byte as model.gguf, with most of its weights in "
        f"{quantization}. Its tokenizer, chat template and config were extracted from it.",
    }


def tensors_of(path: Path) -> tuple[int, str]:
    """Return the number of parameters in a GGUF, and the most frequent type among them."""
    from gguf import GGUFReader

    try:
        counts: Counter[str] = Counter()
        for tensor in GGUFReader(path).tensors:
            counts[tensor.tensor_type.name] += int(tensor.n_elements)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise BadMaterial(f"{path.name} is not a GGUF file that can be read: {error}") from error
    if not counts:
        raise BadMaterial(f"{path.name} holds no weights.")
    return counts.total(), counts.most_common(1)[0][0]
