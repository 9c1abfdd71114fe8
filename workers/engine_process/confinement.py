"""Paths that processes with models may open; Landlock enforces them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from registry.sandbox.code import code_paths

# Folder of the libraries for AMD's devices.
_LIBRARIES = "/opt/rocm"


def paths_allowed(
    engine: str, weights: Path, scratch: Path, packages: Path | None = None
) -> dict[str, list[str]]:
    """Return the paths of `landlock.ruleset`: Python's code, the weights and a temporary folder.

    Args:
        engine: Dotted name of the first engine's class.
        weights: Folder that holds the private copies of all weights, later ones included.
        scratch: Folder in which the process may write.
        packages: Folder that holds private copies of tasks' packages, later ones included.
    """
    code = code_allowed(engine.partition(":")[0].partition(".")[0])
    code["run"] += [str(packages)] if packages else []
    return {**code, "read": [str(weights)], "own": [str(scratch)]}


def code_allowed(package: str = "") -> dict[str, list[str]]:
    """Return the paths of code: Python, a package, all loaded packages, and the programs and
    libraries of models."""
    code = code_paths()
    code["run"] += [_LIBRARIES, *(str(each.resolve()) for each in _packages(package))]
    if program := shutil.which(os.environ.get("ASSAY_ESPEAK_NG", "")):
        code["run"].append(str(Path(program).resolve().parent))
    return code


def _packages(package: str) -> Iterator[Path]:
    """Yield the folders of `package` and of all loaded packages, such as plug-ins."""
    spec = importlib.util.find_spec(package) if package else None
    yield from map(Path, (spec and spec.submodule_search_locations) or ())
    for name, module in list(sys.modules.items()):
        if "." not in name:
            yield from map(Path, getattr(module, "__path__", ()))
