"""Processes that run a model's own code, with bounds on time, memory, input and output.

They run `prompt_process.py`; `registry/sandbox/source.py` starts and kills them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from registry.sandbox import landlock
from registry.sandbox.code import code_paths
from registry.sandbox.readers import Reach, reader_command
from registry.sandbox.source import MEBIBYTE, ProcessSource

_MODULE = "workers.engines.prompt_process"
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": os.defpath,
    "RUST_BACKTRACE": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
# A Python that the system did not install may need the first; a template's clock needs the second.
PASSED_ON = ("LD_LIBRARY_PATH", "TZ")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one request. `memory` excludes the memory of the loaded tokenizer."""

    seconds: float = 5.0
    memory: int = 256 * MEBIBYTE
    max_input: int = 8 * MEBIBYTE
    max_output: int = 2 * MEBIBYTE


def prompt_source(setup: dict[str, Any], limits: Limits) -> ProcessSource:
    """Return a source of processes that have loaded a model's tokenizer and template.

    Args:
        setup: Setup of `prompt_process.Prompts`, without the limits.
        limits: Bounds on each request.

    Raises:
        ProcessEnded: The setup could not be loaded.
    """
    confined = landlock.abi() >= landlock.LEAST_ABI
    bounds = {
        "cpu_s": limits.seconds,
        "memory": limits.memory,
        "max_output": limits.max_output,
        "paths": code_paths() if confined else None,
    }
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return ProcessSource(
        reader_command(_MODULE, Reach(), forks=True),
        {**setup, **bounds},
        environment={**_ENVIRONMENT, **passed},
        seconds=limits.seconds,
        max_input=limits.max_input,
    )
