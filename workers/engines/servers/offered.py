"""The servers that are installed. Loads none of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util

LLAMA_CPP = "xllamacpp"


def llama_cpp_version() -> str:
    """Return the version of llama.cpp's package; empty where it is not installed."""
    if importlib.util.find_spec(LLAMA_CPP) is None:
        return ""
    return importlib.metadata.version(LLAMA_CPP)
