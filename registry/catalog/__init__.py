"""The catalog of tasks, discovered by the entry-point group `assay.tasks`.

The tasks in `tasks/` and those of other packages are discovered in the same way
(`registry.catalog.discovery`). A plug-in that cannot be used makes only its own task unavailable,
with the reason.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from governance.errors import InvalidInput
from registry.catalog import discovery
from registry.catalog.code import CODES, PACKAGES_MAX, TaskCode
from registry.catalog.declaration import Metric, Recipe, RowKind, Task
from registry.catalog.discovery import GROUP as GROUP
from registry.catalog.discovery import Entry, PathCheck, RejectedEntry, TaskCatalog

# Reentrant: a module that reads the catalog during its own import gets an error, not a deadlock.
_lock = threading.RLock()
_answered: list[PathCheck] = []


class _Catalog(Mapping[str, Task]):
    """Tasks by name, loaded on first access."""

    def __getitem__(self, name: str) -> Task:
        return task_catalog().tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(task_catalog().tasks)

    def __len__(self) -> int:
        return len(task_catalog().tasks)


TASKS: Mapping[str, Task] = _Catalog()


def set_path_check(check: PathCheck) -> None:
    """Set the check that denies tasks of other packages the paths that this process itself answers.

    Call it before the first access to a task; otherwise all tasks are discovered again.
    """
    if _answered != [check]:
        _answered[:] = [check]
        _task_catalog.cache_clear()


def task_catalog() -> TaskCatalog:
    """Return all tasks of this process, and those left out. The first call tries the plug-ins.

    Raises:
        RuntimeError: the module of a declaration called this function during its import.
    """
    with _lock:
        discovery.refuse_while_importing()
        return _task_catalog()


@cache
def _task_catalog() -> TaskCatalog:
    return discovery.discover(discovery.installed(), next(iter(_answered), None))


def task_code(name: str) -> TaskCode | None:
    """Return the code of a task in this process; None if the task cannot be used here."""
    task_catalog()
    return CODES.get(name)


def codes_here() -> dict[str, dict[str, str]]:
    """Return the digest and the packages of each task that another package provides, by task."""
    task_catalog()
    return {
        name: {"digest": code.digest, "packages": code.title[:PACKAGES_MAX]}
        for name, code in sorted(CODES.items())
        if code.packages
    }


def unavailable_tasks() -> dict[str, str]:
    """Return the reason for each registered task that cannot be used, by its name."""
    return task_catalog().unavailable


def refused_entries() -> list[RejectedEntry]:
    """Return every entry point that is left out, even if another package provides its name."""
    return task_catalog().refused


def unavailable_reason(name: str) -> str:
    """Return the reason why the task called `name` cannot be used; empty if it can."""
    if name in TASKS:
        return ""
    return unavailable_tasks().get(name, "No installed package provides it.")


@dataclass(frozen=True, slots=True)
class UnavailableTask:
    """A registered task whose plug-in cannot be loaded, with the attributes that lists show."""

    name: str
    reason: str
    title: str = ""
    description: str = ""
    modality: str = ""
    family: str = "Unavailable"
    endpoint: str = ""
    unit: str = ""
    primary_metric: str = ""
    architectures: tuple[str, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    row_kinds: tuple[RowKind, ...] = ()
    metrics: tuple[Metric, ...] = ()
    sample: Mapping[str, object] = field(default_factory=dict)


def listed_tasks() -> list[Task | UnavailableTask]:
    """Return every registered task in order of name, including those that cannot be used."""
    listed: dict[str, Task | UnavailableTask] = {
        name: UnavailableTask(name, reason) for name, reason in unavailable_tasks().items()
    }
    listed.update(TASKS)
    return [listed[name] for name in sorted(listed)]


def entry_of(name: str) -> Entry | None:
    """Return the entry point of a task, with its distribution, without importing any plug-in."""
    return _claims().get(name)


@cache
def _claims() -> dict[str, Entry]:
    return discovery.claims(discovery.installed())[0]


def package_of(name: str) -> str:
    """Return the installed package that provides a task, as `name version`; empty for none."""
    entry = entry_of(name)
    return "" if entry is None else entry.package


def is_own(name: str) -> bool:
    """Return whether the task called `name` ships with Assay."""
    entry = entry_of(name)
    return entry is not None and entry.is_own


def task_alone(name: str) -> Task:
    """Return the only task of this process, such as a run's. No other plug-in is loaded, so that it
    does not matter how the task's module changes the process.

    Raises:
        InvalidInput: no package here provides the task, or its module cannot be imported.
    """
    entry = entry_of(name)
    if entry is None:
        raise _unknown(name)
    try:
        return discovery.load(entry)
    except ImportError as error:
        raise _broken(name, str(error)) from error


def get_task(name: str) -> Task:
    """Return the task called `name`.

    Raises:
        InvalidInput: the task does not exist, or its plug-in cannot be loaded.
    """
    task = TASKS.get(name)
    if task is not None:
        return task
    if reason := unavailable_tasks().get(name):
        raise _broken(name, reason)
    raise _unknown(name)


def _broken(name: str, reason: str) -> InvalidInput:
    return InvalidInput(
        f"The task {name} is unavailable: {reason}",
        code="task_unavailable",
        hint="Ask your operators to fix or remove the package that provides it.",
        fields={"task": ["Its plug-in cannot be loaded."]},
    )


def _unknown(name: str) -> InvalidInput:
    return InvalidInput(
        f"There is no task {name[:60]!r}: no installed package provides it.",
        hint=f"Choose one of {', '.join(sorted(_claims()))}.",
        fields={"task": ["Not a task of the catalog."]},
    )


def get_row_kind(task: str, name: str) -> RowKind:
    """Return a task's row kind called `name`; the task's own row kind when `name` is empty.

    Raises:
        InvalidInput: the task or kind does not exist, or the task's plug-in cannot be loaded.
    """
    declared = get_task(task)
    try:
        return declared.row_kind(name)
    except KeyError:
        names = ", ".join(kind.name for kind in declared.row_kinds if kind.name)
        raise InvalidInput(
            f"{declared.title} has no rows called {name[:60]!r}.",
            hint=f"Leave row_kind empty, or choose one of {names}."
            if names
            else "Leave row_kind empty.",
            fields={"row_kind": ["Not a kind of rows of the task."]},
        ) from None
