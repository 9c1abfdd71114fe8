"""The engines that a worker offers, and what its settings say about each."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from registry.catalog.engines import EngineName
from workers.engines.servers.offered import llama_cpp_version
from workers.engines.servers.process import ServerLimits


def offered_engines() -> list[str]:
    """Return the names of the engines that this process can start, our own first."""
    found = [EngineName.OWN]
    if llama_cpp_version():
        found.append(EngineName.LLAMA_CPP)
    return [str(each) for each in found]


def engine_settings(name: str) -> dict[str, Any]:
    """Return the arguments of an engine that come from the settings of this process."""
    if name == EngineName.OWN:
        return {}
    return {"limits": ServerLimits(memory=settings.ENGINE_SERVER_MEMORY)}
