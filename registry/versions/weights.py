"""The form in which the weights of a version are stored."""

from __future__ import annotations

import re
from enum import StrEnum

from governance.errors import InvalidInput
from registry.catalog.engines import EngineName
from registry.versions.models import ModelVersion, VersionKind

QUANTIZATION_MAX = 20
# Parameter of a base version that was kept as a GGUF.
QUANTIZATION = "quantization"
# Parameter of a soft prompt: its length.
VIRTUAL_TOKENS = "virtual_tokens"
_QUANTIZATION = re.compile(r"[A-Z0-9_]{1,20}")


class WeightsFormat(StrEnum):
    """Format of weights; each engine loads only some."""

    GGUF = "gguf"
    ONNX = "onnx"
    SAFETENSORS = "safetensors"


def weights_version(version: ModelVersion) -> ModelVersion:
    """Return the version whose weights an engine loads: the one below prompts and adapters."""
    result = version
    while result.kind in (VersionKind.PROMPT, VersionKind.ADAPTER) and result.base is not None:
        result = result.base
    return result


def weights_format(version: ModelVersion) -> WeightsFormat:
    """Return the format of the weights that a version is served from."""
    files = weights_version(version).manifest.get("files", ())
    suffixes = {str(file["path"]).rpartition(".")[2].lower() for file in files}
    for each in (WeightsFormat.GGUF, WeightsFormat.ONNX):
        if each in suffixes:
            return each
    return WeightsFormat.SAFETENSORS


def measuring_engine(version: ModelVersion) -> EngineName:
    """Return the engine that loads a version if no release chooses one."""
    if weights_version(version).kind == VersionKind.HOSTED:
        return EngineName.HOSTED
    if weights_format(version) is WeightsFormat.GGUF:
        return EngineName.LLAMA_CPP
    return EngineName.OWN


def quantization_of(version: ModelVersion) -> str:
    """Return how a GGUF stores most of its weights, such as `Q4_K`; empty for other formats."""
    return str(weights_version(version).parameters.get(QUANTIZATION, ""))


def checked_quantization(value: str) -> str:
    """Return `value`; raise InvalidInput unless it is empty or the name of a quantization."""
    if value and not _QUANTIZATION.fullmatch(value):
        raise InvalidInput(f"{value[:40]!r} is not the name of a quantization.")
    return value
