"""Files that the process of a worker's engines may open; `workers.landlock` enforces it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# Libraries of AMD's devices are nowhere else.
_LIBRARIES = "/opt/rocm"
_CODE = (".py", ".so", ".zip", ".dist-info", ".egg-info")


def paths_allowed(
    engine: str, weights: Path, scratch: Path, packages: Path
) -> dict[str, list[str]]:
    """Return the paths of `landlock.ruleset`: Python's code, the weights and a temporary folder.

    Args:
        engine: Dotted name of the first engine's class.
        weights: Folder that holds the private copies of all weights, later ones included.
        scratch: Folder in which the process may write.
        packages: Folder that holds the private copies of tasks' packages, later ones included.
    """
    prefixes = {Path(each).resolve() for each in (sys.prefix, sys.base_prefix)}
    entries = {Path(each or os.curdir).resolve() for each in sys.path}
    code = {
        *(path for entry in entries for path in _code_in(entry)),
        *(path.resolve() for path in _packages(engine.partition(":")[0].partition(".")[0])),
    }
    others = {path for path in code if not any(map(path.is_relative_to, prefixes))}
    return {
        "run": [_LIBRARIES, *map(str, (*prefixes, *others, *_programs(), packages))],
        "read": [str(weights)],
        "own": [str(scratch)],
        # Python finds modules by the names in a folder.
        "list": [str(entry) for entry in entries if os.path.isdir(entry)],
    }


def _code_in(entry: Path) -> list[Path]:
    """Return the code in an entry of Python's path.

    Such an entry may hold data as well; the folder that the worker was started in is one. Folders
    that the worker cannot open hold no code of its own, as `lost+found` of a volume.
    """
    if not os.path.isdir(entry) or entry.name.endswith("-packages"):
        return [entry]
    with contextlib.suppress(PermissionError):
        return [
            each
            for each in entry.iterdir()
            if each.name.endswith(_CODE) or os.path.isfile(each / "__init__.py")
        ]
    return []


def _packages(engine: str) -> Iterator[Path]:
    """Yield folders of packages, however they are found: the engine's, and those that are loaded,
    as plug-ins are."""
    spec = importlib.util.find_spec(engine)
    yield from map(Path, (spec and spec.submodule_search_locations) or ())
    for name, module in list(sys.modules.items()):
        if "." not in name:
            yield from map(Path, getattr(module, "__path__", ()))


def _programs() -> Iterator[Path]:
    """Yield folders of programs and libraries that the environment names."""
    for each in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        if os.path.isabs(each):
            yield Path(each)
    if program := shutil.which(os.environ.get("ASSAY_ESPEAK_NG", "")):
        yield Path(program).resolve().parent
