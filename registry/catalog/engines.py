"""The engines that run models, by their names in releases and for people."""

from __future__ import annotations

from enum import StrEnum

from registry.catalog.declaration import Metric, Task


class EngineName(StrEnum):
    """Name of an engine: Assay's own, another project's server that a worker supervises, or a
    provider that an egress worker calls."""

    OWN = "own"
    LLAMA_CPP = "llama.cpp"
    VLLM = "vllm"
    HOSTED = "hosted"


ENGINE_TITLES = {
    EngineName.OWN: "Assay's own",
    EngineName.LLAMA_CPP: "llama.cpp",
    EngineName.VLLM: "vLLM",
    EngineName.HOSTED: "The provider",
}
# Engines that keep the keys and values of earlier prompts.
KEEP_PREFIXES = frozenset({EngineName.VLLM})
_CLASSES = {
    EngineName.LLAMA_CPP: "workers.engines.servers.llama_cpp:LlamaCppEngine",
    EngineName.VLLM: "workers.engines.servers.vllm:VllmEngine",
    EngineName.HOSTED: "workers.engines.hosted.engine:HostedEngine",
}


def measured_metrics(name: str, task: Task) -> tuple[Metric, ...]:
    """Return the metrics that an evaluation with the engine called `name` measures."""
    return tuple(each for each in task.metrics if name != EngineName.HOSTED or not each.likelihood)


def engine_class(name: str, task: Task) -> str:
    """Return the dotted name of the engine called `name` for a task. Raises ValueError."""
    return _CLASSES.get(EngineName(name), task.engine)
