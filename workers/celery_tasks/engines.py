"""Engines that a worker offers, and their settings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.conf import settings

from registry.catalog import codes_here
from registry.catalog.engines import EngineName
from registry.sandbox import landlock
from workers.control.protocol import Software
from workers.engines.environment import environment_of
from workers.engines.servers.installed import engine_version, llama_cpp_version, vllm_version
from workers.engines.servers.process import ServerLimits

# vLLM compiles kernels when it starts on a GPU.
COMPILING_START_S = 900.0

logger = logging.getLogger(__name__)


def offered_engines() -> list[str]:
    """Return the names of the engines that this process can start, Assay's own first.

    An egress worker offers only hosted models, and no other process offers them: it holds the
    credentials of providers, so no other code may run in it.
    """
    if settings.EGRESS:
        return [str(EngineName.HOSTED)]
    names = [EngineName.OWN]
    if landlock.abi() < landlock.LEAST_ABI:
        logger.warning(landlock.MISSING)
        if not settings.ENGINE_SERVER_UNCONFINED:
            logger.warning(
                "Other engines are not offered. ASSAY_ENGINE_SERVER_UNCONFINED allows them."
            )
            return [str(each) for each in names]
    if llama_cpp_version():
        names.append(EngineName.LLAMA_CPP)
    if vllm_version(settings.VLLM_PYTHON):
        names.append(EngineName.VLLM)
    return [str(each) for each in names]


def own_software(engines: Sequence[str]) -> Software:
    """Return the software of the engines that this process offers, and of its tasks."""
    return Software(
        environments={
            name: environment_of(name, engine_version(name, settings.VLLM_PYTHON))
            for name in engines
        },
        code=codes_here(),
    )


def engine_settings(name: str) -> dict[str, Any]:
    """Return the arguments of an engine that this process's settings define."""
    if name == EngineName.OWN:
        return {}
    limits = ServerLimits(
        memory=settings.ENGINE_SERVER_MEMORY, unconfined=settings.ENGINE_SERVER_UNCONFINED
    )
    if name == EngineName.VLLM:
        limits = replace(limits, start_s=COMPILING_START_S)
        return {"limits": limits, "python": settings.VLLM_PYTHON}
    return {"limits": limits}
