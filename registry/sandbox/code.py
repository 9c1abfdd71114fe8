"""Paths of Python's code, for processes that may read nothing else of this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from pathlib import Path

# Variables that name the places to which libraries write.
WRITTEN = ("HF_HOME", "HOME", "TMPDIR", "XDG_CACHE_HOME")
_CODE = (".py", ".so", ".zip", ".dist-info", ".egg-info")


def code_paths() -> dict[str, list[str]]:
    """Return the paths of `landlock.ruleset` that a process of this Python needs.

    Folders that hold data next to code are not among them, only the code in them. A Python that was
    not installed by the system may need the libraries that the environment names.
    """
    libraries = os.environ.get("LD_LIBRARY_PATH", "")
    return {use: list(paths) for use, paths in _code_paths(tuple(sys.path), libraries).items()}


@functools.lru_cache(maxsize=4)
def _code_paths(path: tuple[str, ...], libraries: str) -> dict[str, list[str]]:
    prefixes = {Path(each).resolve() for each in (sys.prefix, sys.base_prefix)}
    entries = {Path(each or os.curdir).resolve() for each in path}
    code = {each for entry in entries for each in _code_in(entry)}
    others = {each for each in code if not any(map(each.is_relative_to, prefixes))}
    return {
        "run": [
            *sorted(map(str, prefixes | others)),
            *(each for each in libraries.split(os.pathsep) if os.path.isabs(each)),
        ],
        # Python finds modules by the names in a folder.
        "list": sorted(str(entry) for entry in entries if os.path.isdir(entry)),
    }


def _code_in(entry: Path) -> list[Path]:
    """Return the code in an entry of Python's path.

    Such an entry may hold data as well; the folder that the process was started in is one. Folders
    that the process cannot open hold no code of its own, as `lost+found` of a volume.
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
