"""The catalog of tasks, found under the entry-point group `assay.tasks`.

The tasks in `tasks/` and those of other packages come through the same door. A plug-in that cannot
be loaded makes its task unavailable, with the reason, and nothing else.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel

from governance.errors import InvalidInput
from registry.catalog.code import CODE, code_take, point_code
from registry.catalog.declaration import Metric, Recipe, RowKind, Task
from registry.catalog.endpoints import INFERENCE_PATHS, Endpoint
from registry.catalog.inputs import Inputs, Options

GROUP = "assay.tasks"
# The column of models and datasets takes as many characters.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")

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
    return load_tasks(sorted(entry_points(group=GROUP), key=_order))


def _order(point: EntryPoint) -> tuple[bool, str]:
    """Assay's own tasks first, so that no other package can take a name or a path from them."""
    return (point.dist is None or point.dist.name != "assay", point.name)


def unavailable_tasks() -> dict[str, str]:
    """Return the reason for each registered task that cannot be used, by its name."""
    return discovered()[1]


def unavailable_reason(name: str) -> str:
    """Return why the task called `name` cannot be used; empty when it can."""
    if name in TASKS:
        return ""
    return unavailable_tasks().get(name, "No installed package provides it.")


@dataclass(frozen=True, slots=True)
class UnavailableTask:
    """A registered task whose plug-in cannot be loaded, in the shape in which tasks are listed."""

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
    """Return every registered task by name, those that cannot be used too."""
    listed: dict[str, Task | UnavailableTask] = {
        name: UnavailableTask(name, reason) for name, reason in unavailable_tasks().items()
    }
    listed.update(TASKS)
    return [listed[name] for name in sorted(listed)]


def package_of(name: str) -> str:
    """Return the installed package that provides a task, as `name version`; empty for none."""
    points = sorted(entry_points(group=GROUP, name=name), key=_order)
    found = points[0].dist if points else None
    return "" if found is None else f"{found.name} {found.version}"


def load_tasks(points: list[EntryPoint]) -> tuple[dict[str, Task], dict[str, str]]:
    """Load each entry point; return the tasks, and the reason for each that fails."""
    tasks: dict[str, Task] = {}
    unavailable: dict[str, str] = {}
    paths: dict[str, str] = {}
    for point in points:
        try:
            code = point_code(point)
            with CODE.limited() if code.packages else nullcontext():
                task = _load(point, tasks, paths)
            code_take(task, code)
        except Exception as error:
            # The code of a plug-in can raise anything; the platform starts without its task.
            logger.exception("Task %s cannot be loaded", point.name)
            unavailable[point.name] = f"{type(error).__name__}: {error}"[:500]
        else:
            tasks[task.name] = task
            for endpoint in task.endpoints:
                paths.setdefault(endpoint.path, task.name)
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
        if endpoint.path in paths and not _shared(endpoint, tasks[paths[endpoint.path]]):
            raise ValueError(f"{endpoint.path} already serves {paths[endpoint.path]}.")
    if fault := _fault(task):
        raise ValueError(fault)
    return task


def _shared(endpoint: Endpoint, other: Task) -> bool:
    """Return whether a path that another task declares can be declared again: bodies in JSON name
    the deployment, whose task decides."""
    declared = [endpoint, *(each for each in other.endpoints if each.path == endpoint.path)]
    return all(not each.named and each.content_types == ("application/json",) for each in declared)


def _fault(task: Task) -> str:
    """Return the first part of a declaration that the platform cannot work with; empty for none."""
    if not NAME.fullmatch(task.name):
        return f"{task.name!r} is not a name of 1 to 40 lowercase letters, digits and hyphens."
    schemas: tuple[tuple[Any, type[BaseModel]], ...] = (
        (task.input_schema, Inputs),
        (task.option_schema, Options),
    )
    for schema, base in schemas:
        if not (isinstance(schema, type) and issubclass(schema, base)):
            return f"{schema!r} does not derive from {base.__name__}."
    if not task.endpoints:
        return "It declares no endpoint."
    for endpoint in task.endpoints:
        if not endpoint.path.startswith(INFERENCE_PATHS):
            return f"The endpoint {endpoint.path} is not below {' or '.join(INFERENCE_PATHS)}."
    methods = [recipe.method for recipe in task.recipes]
    if len(set(methods)) < len(methods):
        return "Two of its recipes have the same method."
    metrics = {metric.name for metric in task.metrics}
    if task.evaluation is not None and task.primary_metric not in metrics:
        return f"Its primary metric {task.primary_metric!r} is none of its metrics."
    kinds = [kind.name for kind in task.row_kinds]
    if len(set(kinds)) < len(kinds):
        return "Two of its kinds of rows have the same name."
    for recipe in task.recipes:
        if recipe.row_kind not in kinds:
            return f"Its recipe {recipe.method!r} learns from {recipe.row_kind!r}, no kind of rows."
    for kind in task.row_kinds:
        for row in kind.examples:
            kind.row.model_validate(row)
    return ""


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


def get_row_kind(task: str, name: str) -> RowKind:
    """Return a task's kind of rows called `name`; the task's own kind when `name` is empty.

    Raises:
        InvalidInput: there is no such task or kind, or the task's plug-in cannot be loaded.
    """
    declared = get_task(task)
    try:
        return declared.row_kind(name)
    except KeyError:
        known = ", ".join(kind.name for kind in declared.row_kinds if kind.name)
        raise InvalidInput(
            f"{declared.title} has no rows called {name[:60]!r}.",
            hint=f"Leave row_kind empty, or choose one of {known}."
            if known
            else "Leave row_kind empty.",
            fields={"row_kind": ["Not a kind of rows of the task."]},
        ) from None
