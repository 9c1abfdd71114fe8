"""Convert deliveries to the served form: safetensors or ONNX, a config, a tokenizer.

A GGUF delivery is dequantized into bfloat16; a delivery of safetensors or ONNX is copied byte for
byte without loading it. torch is imported for GGUF only.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from workers.engines.architectures import (
    GGUF_ARCHITECTURES,
    UnsupportedModel,
    architecture_of,
    pipeline_parts,
)
from workers.trainers.protocol import BadMaterial, Canceled, Progress

MAX_HEADER_BYTES = 100 * 1024 * 1024  # the limit of the safetensors library itself
MAX_CONTEXT = 1_000_000


def convert(
    source: Path,
    output: Path,
    architectures: Sequence[str],
    progress: Progress,
    components: Sequence[str] = (),
) -> dict[str, Any]:
    """Fill `output`, which is empty or missing, from the delivery in `source`.

    `components` are the allowed classes of parts of a diffusers pipeline, as `library.Class`.

    Returns:
        `architecture`, `parameters` (count), `dtype`, `source_format` and `notes`.

    Raises:
        BadMaterial: No format or several, an architecture not allowed, or a broken file.
        Canceled: `progress` requested the end between two steps.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file() and not path.is_symlink())
    ggufs = [path for path in files if path.suffix.lower() == ".gguf"]
    tensors = [path for path in files if path.suffix.lower() == ".safetensors"]
    graphs = [path for path in files if path.suffix.lower() == ".onnx"]
    if sum(map(bool, (ggufs, tensors, graphs))) != 1 or len(ggufs) > 1:
        raise BadMaterial(
            f"The delivery holds {len(ggufs)} GGUF, {len(tensors)} safetensors and {len(graphs)} "
            "ONNX files; it must be one GGUF file, or files of only one of the other kinds."
        )
    output.mkdir(parents=True, exist_ok=True)
    try:
        if ggufs:
            return _from_gguf(ggufs[0], output, architectures, progress)
        if (source / "model_index.json").is_file():
            architecture, _ = pipeline_parts(source, architectures, components)
        else:
            architecture = architecture_of(source, architectures)
        kind = "ONNX" if graphs else "safetensors"
        summaries = [*map(onnx_summary, graphs), *map(safetensors_summary, tensors)]
        return _copied(source, files, kind, summaries, output, architecture, progress)
    except UnsupportedModel as error:
        raise BadMaterial(str(error)) from error


def _copied(
    source: Path,
    files: list[Path],
    kind: str,
    summaries: list[tuple[int, set[str]]],
    output: Path,
    architecture: str,
    progress: Progress,
) -> dict[str, Any]:
    for path in files:
        raise_if_canceled(progress)
        target = output / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    progress.log(f"Copied {len(files)} files of a {architecture} unchanged.")
    return {
        "architecture": architecture,
        "parameters": sum(count for count, _ in summaries),
        "dtype": ", ".join(sorted(set().union(*(dtypes for _, dtypes in summaries)))),
        "source_format": kind,
        "notes": "Copied byte for byte.",
    }


def safetensors_summary(path: Path) -> tuple[int, set[str]]:
    """Return the number of floating-point parameters in a file, and their dtypes, by its header.

    Raises BadMaterial if the header is malformed or larger than `MAX_HEADER_BYTES`.
    """
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(MAX_HEADER_BYTES, path.stat().st_size):
                raise BadMaterial(f"{path.name} declares a header of {length} bytes; too large.")
            header = json.loads(stream.read(length))
        entries = [value for name, value in header.items() if name != "__metadata__"]
        floats = [entry for entry in entries if "F" in entry["dtype"]]
        return sum(prod(entry["shape"]) for entry in floats), {entry["dtype"] for entry in floats}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadMaterial(f"{path.name} has no valid safetensors header.") from error


def onnx_summary(path: Path) -> tuple[int, set[str]]:
    """Return the number of floating-point weights in an ONNX graph, and their dtypes.

    Raises BadMaterial if the graph cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise BadMaterial(f"{path.name} is not an ONNX model.") from error
    names = onnx.TensorProto.DataType
    weights = [(prod(each.dims), names.Name(each.data_type)) for each in graph.initializer]
    floats = [(count, name) for count, name in weights if "FLOAT" in name or name == "DOUBLE"]
    return sum(count for count, _ in floats), {name for _, name in floats}


def _from_gguf(
    path: Path, output: Path, architectures: Sequence[str], progress: Progress
) -> dict[str, Any]:
    progress.log(f"Reading {path.name}.")
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    source: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    source_config = gguf_config(path)
    name = GGUF_ARCHITECTURES[source_config.model_type]
    if name not in architectures:
        raise BadMaterial(f"{path.name} holds a {name}, which this task does not support.")
    raise_if_canceled(progress)
    progress.log(f"Dequantizing it into a {name} in bfloat16.")
    architecture = getattr(transformers, name)
    quantized = architecture.from_pretrained(
        path.parent, config=source_config, dtype=torch.float32, **source
    )
    raise_if_canceled(progress)
    # `save_pretrained` refuses a model that was loaded from GGUF, so the weights move to a new one.
    config = architecture.config_class(**portable(source_config.to_dict()))
    config.architectures = [name]
    with torch.device("meta"):
        fresh = architecture(config).to(torch.bfloat16)
    weights = {key: value.to(torch.bfloat16) for key, value in quantized.state_dict().items()}
    fresh.load_state_dict(weights, assign=True)
    fresh.tie_weights()
    tokenizer = tokenizer_of(path, int(config.max_position_embeddings))
    raise_if_canceled(progress)
    _save(fresh, tokenizer, output)
    parameters = sum(each.numel() for each in fresh.parameters())
    progress.log(f"Wrote {parameters:,} parameters.")
    return {
        "architecture": name,
        "parameters": parameters,
        "dtype": "BF16",
        "source_format": "gguf",
        "notes": f"Dequantized from {path.name}; tokenizer and chat template taken from it.",
    }


def portable(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config without its quantization, which was undone, and without its source's path."""
    dropped = {"quantization_config", "_name_or_path", "_model_name_or_path"}
    return {key: value for key, value in config.items() if key not in dropped}


def _save(model: Any, tokenizer: Any, output: Path) -> None:
    import transformers

    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def tokenizer_of(path: Path, positions: int) -> Any:
    """Return the tokenizer of a GGUF, with its chat template, for texts of `positions` tokens."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        path.parent, gguf_file=path.name, local_files_only=True
    )
    tokenizer.model_max_length = min(positions, MAX_CONTEXT)
    for key in ("local_files_only", "is_local"):
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def gguf_config(path: Path) -> Any:
    """Return the config of a GGUF; raises BadMaterial if its architecture is not allowed."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True
        )
    except (ValueError, KeyError, IndexError, OverflowError, OSError, struct.error) as error:
        raise BadMaterial(f"{path.name} is not a GGUF file that can be read: {error}") from error
    if config.model_type not in GGUF_ARCHITECTURES:
        raise BadMaterial(
            f"{path.name} holds the architecture {config.model_type!r}; "
            f"only {', '.join(sorted(GGUF_ARCHITECTURES))} is supported."
        )
    return config


def raise_if_canceled(progress: Progress) -> None:
    """Raise Canceled if the job is to stop."""
    if progress.should_stop():
        raise Canceled
