"""Installed packages that provide a task: their names, their files on disk, and their digests.

Every byte is read from the disk: an installer's RECORD only lists the files, and its hashes are not
used. Assay itself and the packages of its locks are left out; a release names their versions
(`registry.catalog.environment`).
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
)
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from registry.canonical import canonical_json
from registry.manifests import ManifestFile

ASSAY = "assay"
# Assay's own modules; a package of a task may not provide modules with these names.
OWN_MODULES = frozenset({"assay", "governance", "registry", "tasks", "workers"})
FILES_MAX = 50_000
# Written by installers, and different on every machine.
_OF_INSTALLERS = frozenset(
    {
        "RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json",
        "uv_build.json", "uv_cache.json",
    }
)  # fmt: skip
_CACHE = "__pycache__"
# Installers write the interpreter's path into programs, and tasks never import them.
_PROGRAMS = frozenset({"bin", "Scripts"})
# Prefixes of paths outside of `site-packages`, such as `share/`, and the placeholder for Python's
# own folder in a list of files.
_ABOVE, OUTSIDE = ("../", "/"), "%prefix%"


class CodeUnknown(Exception):
    """The code of a package cannot be determined; the message gives people the reason."""


@dataclass(frozen=True, slots=True)
class Package:
    """One distribution on disk. A required distribution that is not installed has no version and no
    files.

    `sources` maps the path of each file to its location on disk.
    """

    name: str
    version: str
    files: tuple[ManifestFile, ...] = ()
    sources: Mapping[str, Path] = field(default_factory=dict, compare=False, repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the list of its files: path, size and SHA-256 of each."""
        return files_digest(self.files)

    @property
    def modules(self) -> frozenset[str]:
        """Names under which Python imports its files."""
        return frozenset(filter(None, (_module(file.path) for file in self.files)))

    @property
    def title(self) -> str:
        """Name and version, for people."""
        return f"{self.name} {self.version}" if self.version else f"{self.name} (not installed)"


def files_digest(files: Iterable[ManifestFile]) -> str:
    """Return the SHA-256 of a list of files."""
    rows = sorted((each.path, each.size, each.sha256) for each in files)
    return hashlib.sha256(canonical_json([list(row) for row in rows])).hexdigest()


def is_own(name: str) -> bool:
    """Return whether a distribution is Assay, or is pinned by its locks."""
    return canonicalize_name(name) in locked_names() | {ASSAY}


def locked_names() -> frozenset[str]:
    """Return the names of the distributions that `locks/` pins; `tools/lock.py` writes the list."""
    text = Path(__file__).with_name("locked.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.split() if line)


def packages_of(dist: Distribution, extras: Iterable[str] = ()) -> tuple[Package, ...]:
    """Return a distribution and its requirements, by name, without Assay and its locked packages.

    Raises:
        CodeUnknown: a package's files or requirements cannot be determined.
        OSError: a file cannot be read.
    """
    required = _required(dist, frozenset(extras))
    return tuple(
        Package(name, "") if each is None else package_read(each)
        for name, each in sorted(required.items())
    )


def _required(dist: Distribution, extras: frozenset[str]) -> dict[str, Distribution | None]:
    """Return the required distributions by name; None for one that is not installed."""
    required: dict[str, Distribution | None] = {}
    pending: list[tuple[str, Distribution | None, frozenset[str]]] = [(dist.name, dist, extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        name, provider, selected = pending.pop()
        name = canonicalize_name(name)
        # The distribution that provides the task always counts, whatever its name.
        if (is_own(name) and provider is None) or (name, selected) in seen:
            continue
        seen.add((name, selected))
        if name not in required:
            required[name] = provider or _installed(name)
        each = required[name]
        for line in (each and each.requires) or ():
            try:
                requirement = Requirement(line)
            except InvalidRequirement as error:
                raise CodeUnknown(f"{name} requires {line[:80]!r}, which is not valid.") from error
            if _applies(requirement, selected):
                pending.append((requirement.name, None, frozenset(requirement.extras)))
    return required


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})


def package_read(dist: Distribution) -> Package:
    """Hash the files of a distribution. Raises as `packages_of`."""
    sources = package_sources(dist)
    if len(sources) > FILES_MAX:
        raise CodeUnknown(f"{dist.name} has more than {FILES_MAX:,} files.")
    files = tuple(
        ManifestFile(path, *file_hashed(source)) for path, source in sorted(sources.items())
    )
    return Package(canonicalize_name(dist.name), dist.version, files, sources)


def package_sources(dist: Distribution) -> dict[str, Path]:
    """Return the locations of a distribution's files on disk, by their path below its root.

    Includes the files in the installer's list, and all other files in the folders of its modules,
    because Python would import those as well.

    Raises:
        CodeUnknown: the list of files is missing, or names files of another package.
    """
    record = dist.read_text("RECORD")
    if record is None:
        raise CodeUnknown(f"{dist.name} has no list of its files (RECORD); install it with pip.")
    root = Path(str(dist.locate_file(""))).resolve()
    paths = [row[0] for row in csv.reader(record.splitlines()) if row]
    listed = {os.path.normpath(path).replace(os.sep, "/") for path in paths}
    source = _editable(dist)
    folders = {each for path in listed for each in _folders(path)}
    if source is not None:
        folders = {each for each in folders if each.endswith(".dist-info")}
    locations = {path: root / path for path in listed if source is None and _counts(path)}
    for folder in sorted(folders):
        _check_owner(dist.name, root, folder, listed)
        locations |= {path: root / path for path in _below(root, folder, folders)}
    if source is not None:
        locations |= _source_files(source, _added_to_path(root, listed), dist.name)
    _check_modules(dist.name, locations)
    return {
        inside: place
        for path, place in locations.items()
        if place.is_file() and (inside := _inside(path, place))
    }


def _counts(path: str) -> bool:
    """Return whether a listed file is part of the code."""
    *folders, name = path.split("/")
    if name.endswith(tuple(BYTECODE_SUFFIXES)) or _CACHE in folders:
        return False
    if path.startswith(_ABOVE):
        return not _PROGRAMS.intersection(folders)
    return not (name in _OF_INSTALLERS and folders and folders[0].endswith(".dist-info"))


def _folders(path: str) -> Iterator[str]:
    """Yield the folder of a listed file, if it is below the root."""
    folder = path.rpartition("/")[0]
    if folder and not path.startswith(_ABOVE) and _CACHE not in folder.split("/"):
        yield folder


def _below(root: Path, folder: str, listed: set[str]) -> Iterator[str]:
    """Yield the files in a folder and, if it is a Python package, in all folders below it.

    A folder without `__init__.py` may be shared with other distributions; below it, only the listed
    folders belong to this one.
    """
    shared = not (root / folder / "__init__.py").is_file()
    try:
        entries = sorted(os.scandir(root / folder), key=lambda each: each.name)
    except FileNotFoundError:
        return
    for entry in entries:
        path = f"{folder}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if entry.name != _CACHE and not (shared and path not in listed):
                yield from _below(root, path, listed)
        elif _counts(path):
            yield path


def _check_owner(name: str, root: Path, folder: str, listed: set[str]) -> None:
    """Raise CodeUnknown if a folder belongs to a package of another distribution."""
    top = folder.partition("/")[0]
    if (root / top / "__init__.py").is_file() and f"{top}/__init__.py" not in listed:
        raise CodeUnknown(f"{name} has files in {top}, which it does not provide.")


def _check_modules(name: str, paths: Iterable[str]) -> None:
    """Raise CodeUnknown for a module that would hide a module of Python or of Assay."""
    paths = set(paths)
    for module in {_module(path) for path in paths}:
        shared = not any(path.startswith(f"{module}.") for path in paths)
        shared = shared and f"{module}/__init__.py" not in paths
        hides_another = module in sys.stdlib_module_names or module in OWN_MODULES
        if hides_another or (module in own_modules() and not shared):
            raise CodeUnknown(f"{name} provides a module {module}, which would hide another one.")


def _module(path: str) -> str:
    """Return the name under which Python imports a file; empty for other files."""
    top, _, rest = path.partition("/")
    if rest:
        return "" if not top.isidentifier() else top
    suffixes = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES)
    return next((top.removesuffix(each) for each in suffixes if top.endswith(each)), "")


def _inside(path: str, place: Path) -> str:
    """Return the path of a file for the list of files; empty to leave the file out.

    Of the files outside of `site-packages`, such as in `share/`, only those in Python's own folder
    count. Another path could name any file that this process can read, and less trusted processes
    get copies of the package.
    """
    if not path.startswith(_ABOVE):
        return path
    prefix = Path(sys.prefix).resolve()
    real = place.resolve()
    return f"{OUTSIDE}/{real.relative_to(prefix)}" if real.is_relative_to(prefix) else ""


def _editable(dist: Distribution) -> Path | None:
    """Return the source folder of an editable installation; None for any other."""
    try:
        origin: Any = json.loads(dist.read_text("direct_url.json") or "{}")
        if not origin.get("dir_info", {}).get("editable"):
            return None
        return Path(unquote(urlsplit(origin["url"]).path)).resolve()
    except (ValueError, KeyError, AttributeError) as error:
        raise CodeUnknown(f"{dist.name} has a direct_url.json that cannot be read.") from error


def _added_to_path(root: Path, listed: Iterable[str]) -> list[Path]:
    """Return the folders that the `.pth` files of an editable installation add to Python's path."""
    lines = [
        line.strip()
        for path in sorted(listed)
        if path.endswith(".pth") and "/" not in path and (root / path).is_file()
        for line in (root / path).read_text(encoding="utf-8").splitlines()
    ]
    folders = [Path(line) for line in lines if line and not line.startswith(("#", "import"))]
    return [each.resolve() for each in folders if each.is_dir()]


def _source_files(source: Path, added: list[Path], name: str) -> dict[str, Path]:
    """Return the modules and packages of an editable installation."""
    roots = added or [source / "src" if (source / "src").is_dir() else source]
    modules: dict[str, Path] = {}
    for root in roots:
        if not root.is_relative_to(source):
            raise CodeUnknown(f"{name} imports {root}, outside of the folder of its sources.")
        for entry in sorted(root.iterdir()):
            if (entry / "__init__.py").is_file():
                modules |= {path: root / path for path in _below(root, entry.name, set())}
            elif _module(entry.name) and entry.is_file():
                modules[entry.name] = entry
    return modules


# By path, times, size and inode: a process hashes an unchanged file only once.
_hashed: dict[tuple[str, int, int, int, int], str] = {}


def file_hashed(path: Path) -> tuple[int, str]:
    """Return the size and the SHA-256 of a file."""
    with path.open("rb") as opened:
        status = os.fstat(opened.fileno())
        key = (
            str(path), status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino,
        )  # fmt: skip
        if key not in _hashed:
            _hashed[key] = hashlib.file_digest(opened, "sha256").hexdigest()
        return status.st_size, _hashed[key]


def folder_files(folder: Path) -> tuple[ManifestFile, ...]:
    """Hash every file of a private copy except the bytecode that Python wrote there."""
    return tuple(
        ManifestFile(path, *file_hashed(folder / path))
        for path in sorted(
            str(Path(place, name).relative_to(folder)).replace(os.sep, "/")
            for place, _, names in os.walk(folder)
            for name in names
        )
        if _counts(path)
    )


@cache
def standard_folders() -> tuple[str, ...]:
    """Return the entries of Python's path that hold its standard library."""
    roots = [Path(sysconfig.get_path(each)).resolve() for each in ("stdlib", "platstdlib")]
    return tuple(
        entry
        for entry in sys.path
        if (Path(entry).suffix == ".zip" and Path(entry).name.startswith("python"))
        or (
            any(Path(entry or ".").resolve().is_relative_to(root) for root in roots)
            and not Path(entry).name.endswith("-packages")
        )
    )


@cache
def own_modules() -> dict[str, tuple[Path, ...]]:
    """Return the folders in which the packages of Assay's locks provide each module."""
    folders: dict[str, set[Path]] = {}
    for name in sorted(locked_names()):
        each = _installed(name)
        record = each.read_text("RECORD") if each is not None else None
        if each is None or record is None:
            continue
        root = Path(str(each.locate_file(""))).resolve()
        for row in csv.reader(record.splitlines()):
            if row and (module := _module(row[0])):
                folders.setdefault(module, set()).add(root)
    return {module: tuple(sorted(roots)) for module, roots in folders.items()}
