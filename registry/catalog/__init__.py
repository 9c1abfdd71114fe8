"""The catalog of tasks, found under the entry-point group `assay.tasks`.

The tasks in `tasks/` and those of other packages come through the same door. A plug-in that cannot
be loaded makes its task unavailable, with the reason, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from governance.errors import InvalidInput
from registry.catalog.declaration import Task

GROUP = "assay.tasks"

logger = logging.getLogger(__name__)


class _Catalog(Mapping[str, Task]):
    """Tasks by name, loaded at the first look."""

    def __getitem__(self, name: str) -> Task:
        return discovered()[0][name]

    def __iter__(self) -> Iterator[str]:
        return iter(discovered()[0])

    def __len__(self) -> int:
        return len(discovered()[0])


TASKS: Mapping[str, Task] = _Catalog()


@cache
def discovered() -> tuple[dict[str, Task], dict[str, str]]:
    """Return the tasks by name, and the reason for each plug-in that cannot be used."""
    return load_tasks(sorted(entry_points(group=GROUP), key=lambda point: point.name))


def unavailable_tasks() -> dict[str, str]:
    """Return the reason for each registered task that cannot be used, by its name."""
    return discovered()[1]


def load_tasks(points: list[EntryPoint]) -> tuple[dict[str, Task], dict[str, str]]:
    """Load each entry point; return the tasks, and the reason for each that fails."""
    tasks: dict[str, Task] = {}
    unavailable: dict[str, str] = {}
    paths: dict[str, str] = {}
    for point in points:
        try:
            task = _load(point, tasks, paths)
        except Exception as error:
            # The code of a plug-in can raise anything; the platform starts without its task.
            logger.exception("Task %s cannot be loaded", point.name)
            unavailable[point.name] = f"{type(error).__name__}: {error}"[:500]
        else:
            tasks[task.name] = task
            paths.update({endpoint.path: task.name for endpoint in task.endpoints})
    return tasks, unavailable


def _load(point: EntryPoint, tasks: Mapping[str, Task], paths: Mapping[str, str]) -> Task:
    task = point.load()
    if not isinstance(task, Task):
        raise TypeError(f"{point.value} is not a registry.catalog.declaration.Task.")
    if task.name != point.name:
        raise ValueError(
            f"{point.value} declares {task.name!r}; its entry point is {point.name!r}."
        )
    if task.name in tasks:
        raise ValueError(f"Another package already provides {task.name}.")
    for endpoint in task.endpoints:
        if endpoint.path in paths:
            raise ValueError(f"{endpoint.path} already serves {paths[endpoint.path]}.")
    return task


def get_task(name: str) -> Task:
    """Return the task called `name`.

    Raises:
        InvalidInput: there is no such task, or its plug-in cannot be loaded.
    """
    task = TASKS.get(name)
    if task is not None:
        return task
    if reason := unavailable_tasks().get(name):
        raise InvalidInput(
            f"The task {name} is unavailable: {reason}",
            code="task_unavailable",
            hint="Ask your operators to fix or remove the package that provides it.",
            fields={"task": ["Its plug-in cannot be loaded."]},
        )
    raise InvalidInput(
        f"There is no task {name[:60]!r}.",
        hint=f"Choose one of {', '.join(sorted(TASKS))}.",
        fields={"task": ["Not a task of the catalog."]},
    )
