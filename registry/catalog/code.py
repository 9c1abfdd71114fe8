"""The code of tasks that other packages provide, as this process runs it.

A process hashes the packages of a task before it imports any of them, and imports them only from
private copies, whose bytes were hashed while they were written. So the digest identifies the code
that runs, even if packages, Python's path or bytecode files change meanwhile; a package that is
installed later takes effect at the next start. Loads neither Django nor torch.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder, EntryPoint
from pathlib import Path
from types import ModuleType

from registry.canonical import json_digest
from registry.catalog.declaration import Task
from registry.catalog.packages import (
    OWN_MODULES,
    CodeUnknown,
    Package,
    folder_files,
    own_modules,
    packages_of,
    standard_folders,
)
from registry.manifests import CHUNK_BYTES

logger = logging.getLogger(__name__)
# Maximum length of the reported names of a task's packages.
PACKAGES_MAX = 300
_ANY = DistributionFinder.Context()


@dataclass(frozen=True)
class TaskCode:
    """The packages that provide a task, and their requirements, except Assay and the packages that
    its locks pin. Empty for Assay's own tasks."""

    packages: tuple[Package, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names and digests of the packages."""
        return json_digest([[each.name, each.digest] for each in self.packages])

    @property
    def title(self) -> str:
        """The names and versions of the packages, for people."""
        return ", ".join(each.title for each in self.packages) or "no package but Assay"


# The code of every task that ships with Assay.
NO_PACKAGES = TaskCode()


class PrivateCode(MetaPathFinder):
    """Finder of the modules of tasks' packages; it uses only private copies.

    It is the first finder of a process, and copies a package on the first import or request.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._packages: dict[str, Package] = {}
        self._owners: dict[str, list[str]] = {}
        self._copies: dict[str, Path] = {}
        self._root: Path | None = None
        self._parent: Path | None = None
        self._limited = threading.local()
        self._confined = False

    def add(self, package: Package, copy: Path | None = None) -> None:
        """Take over the imports of a package before any of its modules is imported. `copy` is a
        private copy made by another process.

        Raises:
            CodeUnknown: the package was imported already, or has changed since it was added.
        """
        with self._lock:
            registered = self._packages.get(package.name)
            if registered is not None and registered.digest != package.digest:
                raise CodeUnknown(
                    f"{package.name} is not the {registered.title} that this process has imported; "
                    "start it again."
                )
            if registered is not None:
                return
            imported = package.modules & sys.modules.keys()
            for module in imported - own_modules().keys():
                raise CodeUnknown(
                    f"{module} of {package.title} was imported before its files were hashed, by "
                    "code that runs when Python starts."
                )
            self._packages[package.name] = package
            if copy is not None:
                self._copies[package.name] = copy
            for module in package.modules:
                self._owners.setdefault(module, []).append(package.name)
            if self not in sys.meta_path:
                sys.meta_path.insert(0, self)
            for module in imported:  # A namespace shared with a package of Assay's locks.
                sys.modules[module].__path__ = self._shared(module)

    def copies_below(self, folder: Path) -> None:
        """Set the parent folder of all copies; the caller removes it."""
        with self._lock:
            self._parent = folder

    def folders(self, code: TaskCode) -> dict[str, Path]:
        """Return the private copy of each package, by its name.

        Raises:
            CodeUnknown: a package has changed since its files were hashed.
            OSError: a file cannot be read or written.
        """
        return {each.name: self._copy(each.name) for each in code.packages}

    def root(self) -> Path:
        """Return the folder of all copies, which no other user can open."""
        with self._lock:
            if self._root is None:
                self._root = Path(tempfile.mkdtemp(prefix="assay-code-", dir=self._parent))
                atexit.register(_remove_copies, self._root, os.getpid())
            return self._root

    def _copy(self, name: str) -> Path:
        with self._lock:
            if name not in self._copies:
                folder = self.root() / name
                shutil.rmtree(folder, ignore_errors=True)
                _copy_package(self._packages[name], folder)
                self._copies[name] = folder
            return self._copies[name]

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """Let this thread import only modules from packages that a task requires."""
        before = getattr(self._limited, "on", False)
        self._limited.on = True
        try:
            yield
        finally:
            self._limited.on = before

    def confine(self) -> None:
        """From now on, let the whole process import only modules from packages that a task
        requires, and let its child processes find the private copies first."""
        self._confined = True
        copies = [str(self._copy(name)) for name in self._packages]
        sys.path[:0] = [each for each in copies if each not in sys.path]
        path = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
        path[:0] = [each for each in copies if each not in path]
        os.environ["PYTHONPATH"] = os.pathsep.join(path)
        # PathFinder would find everything on Python's path. Other finders, such as that of `six`,
        # find parts of one package only.
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(PathFinder)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Find a package's module in its copy; its `__path__` then leads to the submodules.

        Where imports are limited, all other modules come from Python's standard library, from Assay
        or from the installed packages of its locks, so that a folder added to Python's path cannot
        hide them.
        """
        limited = self._confined or getattr(self._limited, "on", False)
        if path is not None:
            return PathFinder.find_spec(fullname, path, target) if self._confined else None
        if fullname in self._owners:
            return self._spec_in_copies(fullname, target)
        if not limited or fullname in sys.builtin_module_names:
            return None
        if fullname in sys.stdlib_module_names:
            return PathFinder.find_spec(fullname, standard_folders(), target)
        if fullname in OWN_MODULES:
            return PathFinder.find_spec(fullname, None, target)
        if fullname in own_modules():
            return PathFinder.find_spec(fullname, [str(each) for each in own_modules()[fullname]])
        logger.info("%s is in no package that a task requires; it is not found", fullname)
        if self._confined:
            return None
        raise ModuleNotFoundError(
            f"No module named {fullname!r} in the packages that the task requires", name=fullname
        )

    def find_distributions(
        self, context: DistributionFinder.Context = _ANY
    ) -> Iterable[Distribution]:
        """Return the installed distributions in place of `PathFinder`, which `confine` removed."""
        return PathFinder.find_distributions(context) if self._confined else ()

    def _spec_in_copies(self, fullname: str, target: ModuleType | None) -> ModuleSpec:
        folders = [str(self._copy(name)) for name in self._owners[fullname]]
        spec = PathFinder.find_spec(fullname, folders, target)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        if spec.origin is None:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = self._shared(fullname)
        return spec

    def _shared(self, module: str) -> list[str]:
        """Return the folders of a namespace: private copies, then those of Assay's locks."""
        folders = [*(self._copy(name) for name in self._owners[module])]
        folders += own_modules().get(module, ())
        return [str(each / module) for each in folders if (each / module).is_dir()]


def _copy_package(package: Package, target: Path) -> None:
    """Copy a package's files and hash the written bytes. Raises CodeUnknown and OSError."""
    target.mkdir(parents=True, mode=0o700)
    for file in package.files:
        copy, digest = target / file.path, hashlib.sha256()
        copy.parent.mkdir(parents=True, exist_ok=True)
        with package.sources[file.path].open("rb") as source, copy.open("xb") as written:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                written.write(chunk)
            copy.chmod(os.fstat(source.fileno()).st_mode & 0o700)
        if digest.hexdigest() != file.sha256:
            shutil.rmtree(target, ignore_errors=True)
            raise CodeUnknown(
                f"{file.path} of {package.title} has changed since this process started; start it "
                "again."
            )


def _remove_copies(folder: Path, process: int) -> None:
    if os.getpid() == process:  # A fork uses the copies of its parent.
        shutil.rmtree(folder, ignore_errors=True)


CODE = PrivateCode()
# Code of each loaded task, by the task's name.
CODES: dict[str, TaskCode] = {}


def point_code(point: EntryPoint, distribution: Distribution) -> TaskCode:
    """Hash the packages that provide a task before any of their modules is imported.

    Raises:
        CodeUnknown: the list of their files is unknown, or one was imported already.
        OSError: a file cannot be read.
    """
    code = TaskCode(packages_of(distribution, point.extras))
    for package in code.packages:
        CODE.add(package)
    _check_covered(point.value, code)
    return code


def code_take(task: Task, code: TaskCode) -> None:
    """Record the code of a loaded task.

    Raises:
        CodeUnknown: the task names a module that none of its packages contains.
    """
    names = [task.engine, task.runner, *(recipe.train for recipe in task.recipes)]
    if task.evaluation is not None:
        names.append(task.evaluation.score)
    for name in filter(None, names if code.packages else ()):
        _check_covered(name, code)
    CODES[task.name] = code


def _check_covered(name: str, code: TaskCode) -> None:
    module = name.partition(":")[0].partition(".")[0]
    if module in OWN_MODULES or any(module in each.modules for each in code.packages):
        return
    raise CodeUnknown(
        f"{name} is in none of {code.title}: their requirements must name the package that "
        "provides it."
    )


def code_enter(packages: Mapping[str, str]) -> str:
    """Import a task's packages from the copies of another process from now on, and return the
    digest of their contents. `packages` maps each package to the folder of its copy.

    Raises:
        CodeUnknown: a package was imported already, or has changed.
        OSError: a file cannot be read.
    """
    copied = []
    for name, folder in sorted(packages.items()):
        copied.append(Package(name, "", folder_files(Path(folder))))
        CODE.add(copied[-1], Path(folder))
    if copied:
        CODE.confine()
    return TaskCode(tuple(copied)).digest
