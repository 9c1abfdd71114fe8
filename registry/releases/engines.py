"""Engine and precision of a release.

Both are part of the dossier, so that reviewers decide on them and a deployment runs exactly them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import models
from django.utils.text import get_text_list

from governance.errors import InvalidInput
from registry.catalog import get_task
from registry.catalog.engines import ENGINE_TITLES, EngineName
from registry.versions.models import ModelVersion, VersionKind
from registry.versions.weights import (
    VIRTUAL_TOKENS,
    WeightsFormat,
    measuring_engine,
    quantization_of,
    weights_format,
    weights_version,
)

ENGINE_MAX, PRECISION_MAX = 12, 10
# Engines that compute in one precision only, and why.
_AS_STORED = {
    EngineName.LLAMA_CPP: "llama.cpp computes with the weights as the GGUF stores them.",
    EngineName.HOSTED: "The provider decides on the precision.",
}
ENGINES = [(str(name), title) for name, title in ENGINE_TITLES.items()]


class Precision(models.TextChoices):
    """Numbers that an engine computes with; `stored` are those of the weights."""

    STORED = "stored", "As the weights are stored"
    FLOAT32 = "float32", "float32"
    BFLOAT16 = "bfloat16", "bfloat16"
    FLOAT16 = "float16", "float16"


_SERVES = {
    EngineName.LLAMA_CPP: "llama.cpp serves a GGUF that intake kept as delivered.",
    EngineName.HOSTED: "A provider serves only hosted versions and prompts on them.",
}


def engines_for(version: ModelVersion) -> list[EngineName]:
    """Return the engines that can serve a version, the default first."""
    if weights_version(version).kind == VersionKind.HOSTED:
        return [EngineName.HOSTED]
    if weights_format(version) is WeightsFormat.GGUF:
        return [EngineName.LLAMA_CPP]
    engines = [EngineName.OWN]
    if get_task(version.model.task).streams_text and _has_no_soft_prompt(version):
        engines.append(EngineName.VLLM)
    return engines


def precisions_for(engines: Sequence[EngineName]) -> list[Precision]:
    """Return the precisions that at least one of the engines computes in."""
    if all(engine in _AS_STORED for engine in engines):
        return [Precision.STORED]
    return list(Precision)


def _has_no_soft_prompt(version: ModelVersion) -> bool:
    """Return whether its adapter, if it has one, is LoRA, which vLLM loads."""
    base = version.base if version.kind == VersionKind.PROMPT else version
    if base is None or base.kind != VersionKind.ADAPTER:
        return True
    return VIRTUAL_TOKENS not in base.parameters


def checked_engine(
    version: ModelVersion, engine: str | None, precision: str | None
) -> tuple[EngineName, Precision]:
    """Return the engine and precision of a release, with defaults for empty values.

    Raises:
        InvalidInput: the engine or precision does not exist, or cannot serve the version.
    """
    name = _named(engine) if engine else measuring_engine(version)
    possible = engines_for(version)
    if name not in possible:
        titles = get_text_list([ENGINE_TITLES[each] for each in possible])
        raise InvalidInput(
            f"{ENGINE_TITLES[name]} cannot serve {version}.",
            hint=_SERVES.get(name, f"Choose {titles}."),
            fields={"engine": [f"{version} is served by {titles}."]},
        )
    try:
        chosen = Precision(precision or Precision.STORED)
    except ValueError as error:
        raise InvalidInput(
            f"{str(precision)[:40]!r} is not a precision.",
            fields={"precision": [f"One of {', '.join(Precision.values)}."]},
        ) from error
    if chosen not in precisions_for([name]):
        raise InvalidInput(
            _AS_STORED[name],
            fields={"precision": [f"Choose {Precision.STORED}."]},
        )
    return name, chosen


def serving_section(version: ModelVersion, engine: str, precision: str) -> dict[str, Any]:
    """Return the dossier's section on the engine."""
    return {
        "engine": str(engine),
        "precision": str(precision),
        "quantization": quantization_of(version),
    }


def engine_in_words(section: Mapping[str, Any]) -> str:
    """Return the engine and precision of a dossier's section or evaluation, such as "vLLM
    (float16)". Evaluations by our own engine state neither.
    """
    engine = section.get("engine", EngineName.OWN)
    precision = section.get("precision", Precision.STORED)
    title = ENGINE_TITLES[EngineName(engine)] if engine in set(EngineName) else engine
    numbers = "as stored" if precision == Precision.STORED else precision
    return f"{title} ({numbers})"


def _named(engine: str) -> EngineName:
    try:
        return EngineName(engine)
    except ValueError as error:
        raise InvalidInput(
            f"{engine[:40]!r} is not an engine.",
            fields={"engine": [f"One of {', '.join(EngineName)}."]},
        ) from error
