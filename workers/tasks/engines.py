"""The engines that a worker offers, and what its settings say about each."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from django.conf import settings

from registry.catalog.engines import EngineName
from workers import landlock
from workers.engines.servers.offered import llama_cpp_version, vllm_version
from workers.engines.servers.process import ServerLimits

# It compiles kernels when it starts on a GPU.
VLLM_START_S = 900.0

logger = logging.getLogger(__name__)


def offered_engines() -> list[str]:
    """Return the names of the engines that this process can start, our own first."""
    found = [EngineName.OWN]
    if landlock.abi() < landlock.LEAST_ABI:
        logger.warning(landlock.MISSING)
        if not settings.ENGINE_SERVER_UNCONFINED:
            logger.warning(
                "llama.cpp and vLLM are not offered. ASSAY_ENGINE_SERVER_UNCONFINED allows them."
            )
            return [str(each) for each in found]
    if llama_cpp_version():
        found.append(EngineName.LLAMA_CPP)
    if vllm_version(settings.VLLM_PYTHON):
        found.append(EngineName.VLLM)
    return [str(each) for each in found]


def engine_settings(name: str) -> dict[str, Any]:
    """Return the arguments of an engine that come from the settings of this process."""
    if name == EngineName.OWN:
        return {}
    limits = ServerLimits(
        memory=settings.ENGINE_SERVER_MEMORY, unconfined=settings.ENGINE_SERVER_UNCONFINED
    )
    if name == EngineName.VLLM:
        return {"limits": replace(limits, start_s=VLLM_START_S), "python": settings.VLLM_PYTHON}
    return {"limits": limits}
