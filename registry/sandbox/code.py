"""Paths of Python's code, for processes that may read only code."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from pathlib import Path

# Environment variables of the folders to which libraries write.
WRITTEN = ("HF_HOME", "HOME", "TMPDIR", "XDG_CACHE_HOME")
_CODE = (".py", ".so", ".zip", ".dist-info", ".egg-info")


def code_paths() -> dict[str, list[str]]:
    """Return the paths for `landlock.ruleset` that a process of this Python needs.

    Of folders with data next to code, they include only the code. A Python that was not installed
    by the system may need the libraries in `LD_LIBRARY_PATH`.
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

    An entry may also contain data, such as the folder in which the process was started. Folders
    that the process cannot open contain no code for it, such as `lost+found` of a volume.
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
