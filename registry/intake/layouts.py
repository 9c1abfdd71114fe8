"""Accepted layouts of a delivery: GGUF, transformers, ONNX, a diffusers pipeline, an adapter, the
description of a hosted model.

Pure. Raises `RejectedFile` with a complete sentence for people.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from governance.errors import InvalidInput
from governance.strict_json import unique_object
from registry.intake.formats import RejectedFile
from registry.manifests import HOSTED_FILE

# Libraries whose classes a pipeline's index may name; "stable_diffusion" is a module of diffusers.
# The task's list of classes is checked when the delivery is converted.
PIPELINE_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_WEIGHTS = (".gguf", ".onnx", ".safetensors")
_CONFIGS = (ADAPTER_CONFIG, "config.json", "model_index.json")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")


def check_layout(folder: Path, files: list[str]) -> str:
    """Describe the delivery's layout in a sentence. Raises RejectedFile for any other layout."""
    if HOSTED_FILE in files:
        return _check_hosted(folder, files)
    suffixes = [PurePosixPath(path).suffix.lower() for path in files]
    if any(PurePosixPath(path).name.lower() == ADAPTER_CONFIG for path in files):
        # A loader would add the adapter to the weights, or load other weights instead.
        raise RejectedFile(
            f"It holds an {ADAPTER_CONFIG}; an adapter is not a base. Name its base version to "
            "deliver an adapter."
        )
    gguf, tensors = suffixes.count(".gguf"), suffixes.count(".safetensors")
    if "model_index.json" in files:
        return _check_pipeline(folder, files, gguf)
    if gguf == 1 and not tensors:
        return "One GGUF file."
    graphs = suffixes.count(".onnx")
    if graphs and (gguf or tensors):
        raise RejectedFile(
            "It holds ONNX files next to other weights; it would be unclear which are served. "
            "Deliver one of them."
        )
    if graphs and "config.json" in files:
        return f"{graphs} ONNX file(s) with a config.json."
    if tensors and not gguf and "config.json" in files:
        return f"{tensors} safetensors file(s) with a config.json."
    raise RejectedFile(
        "A delivery holds either one GGUF file, safetensors or ONNX files with their config.json, "
        "or a diffusers pipeline: a model_index.json with a folder for each part; or the "
        f"{HOSTED_FILE} of a hosted model alone."
    )


def _check_hosted(folder: Path, files: list[str]) -> str:
    if len(files) > 1:
        raise RejectedFile(
            f"It holds a {HOSTED_FILE} next to other files; it would be unclear whether a provider "
            "or Assay runs the model. Deliver one of them."
        )
    # Imported here, because pydantic takes longer than the checks of other deliveries
    # (`bounded_hosted`).
    from registry.catalog.hosted import MAX_BYTES, HostedDescription

    try:
        with (folder / HOSTED_FILE).open("rb") as file:
            description = HostedDescription.read(file.read(MAX_BYTES + 1))
        description.check_runs()
    except InvalidInput as error:
        raise RejectedFile(error.message) from error
    return f"The description of {description.model} at {description.host}."


def check_adapter(files: list[str]) -> str:
    """Describe the files of an adapter in a sentence. Raises RejectedFile for other files."""
    weights = [path for path in files if PurePosixPath(path).suffix.lower() in _WEIGHTS]
    configs = {path for path in files if PurePosixPath(path).name.lower() in _CONFIGS}
    if weights != [ADAPTER_WEIGHTS] or configs != {ADAPTER_CONFIG}:
        raise RejectedFile(
            f"An adapter is one {ADAPTER_WEIGHTS} with its {ADAPTER_CONFIG}, and holds no other "
            "weights and no config of a model."
        )
    return "An adapter in safetensors."


def _check_pipeline(folder: Path, files: list[str], gguf: int) -> str:
    if gguf or "config.json" in files or any(path.lower().endswith(".onnx") for path in files):
        raise RejectedFile(
            "A diffusers pipeline holds no GGUF file, no ONNX file, and no config.json next to its "
            "model_index.json; it would be unclear which model it is."
        )
    index = _read_index(folder / "model_index.json")
    if not isinstance(index.get("_class_name"), str):
        raise RejectedFile("model_index.json must name one pipeline class in _class_name.")
    parts = [name for name, value in index.items() if _check_entry(name, value)]
    folders = {PurePosixPath(path).parts[0] for path in files if "/" in path}
    for name in parts:
        if name not in folders:
            raise RejectedFile(
                f"model_index.json names the folder {name}, which was not delivered."
            )
    if extra := sorted(folders - set(parts)):
        raise RejectedFile(
            f"The delivery holds the folder {extra[0][:60]}, which model_index.json does not name."
        )
    weights = [path for path in files if path.lower().endswith(".safetensors")]
    if not weights or any("/" not in path for path in weights):
        raise RejectedFile(
            "The safetensors files of a diffusers pipeline lie in the folders of parts."
        )
    return f"A diffusers pipeline of {len(parts)} parts, {len(weights)} safetensors file(s)."


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_object)
    except (OSError, ValueError, RecursionError) as error:
        raise RejectedFile("model_index.json cannot be read as JSON.") from error
    if not isinstance(index, dict):
        raise RejectedFile("model_index.json is not a JSON object.")
    return index


def _check_entry(name: str, value: Any) -> bool:
    """Return whether an entry names a part, not a plain setting. Raises RejectedFile."""
    if name.startswith("_") or value is None or isinstance(value, (str, bool, int, float)):
        return False
    if value == [None, None]:
        return False
    if not _NAME.fullmatch(name):
        raise RejectedFile(
            f"model_index.json names {name[:60]!r}, which is not a plain folder name."
        )
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(isinstance(each, str) for each in value)
    ):
        raise RejectedFile(f"model_index.json must define {name} as a library and a class.")
    library, class_name = value
    if library not in PIPELINE_LIBRARIES or not _NAME.fullmatch(class_name):
        raise RejectedFile(
            f"model_index.json names {library[:60]}.{class_name[:60]} as its {name}; only classes "
            f"of {', '.join(PIPELINE_LIBRARIES)} are accepted."
        )
    return True
