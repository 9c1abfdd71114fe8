"""Self-test of tasks in the environment that runs them: `python -m workers.offers.self_test`.

A worker starts it for the tasks of each package that is not Assay's own. It checks their
declarations as every process does, and imports their runner, recipes and score. Does not use
Django.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint
from typing import Any

from registry.catalog.checks import faults as check
from registry.catalog.checks.faults import Fault
from registry.catalog.checks.process import answer_of, declared
from registry.catalog.declaration import Task
from registry.catalog.discovery import Entry
from registry.catalog.probe import trial
from workers.engine_process.confinement import code_allowed
from workers.engines.names import load_name
from workers.run.environment import run_environment

# The import of torch from a cold disk takes a minute or two.
SECONDS = 240.0
_METHODS = ("prepare", "collate", "run", "split", "cancel", "close")
_FOLDER, _KEYWORDS = "folder", ("architectures", "device", "dtype")


def self_test(entries: Sequence[Entry]) -> list[Fault]:
    """Return the faults of tasks in this environment, found by a separate process.

    Raises:
        CodeUnknown: the code of the tasks cannot be determined.
        OSError: the process cannot be started.
    """
    return trial(
        "workers.offers.self_test",
        [entry.point for entry in entries],
        {name: copy for entry in entries for name, copy in entry.copies().items()},
        seconds=SECONDS,
        memory=None,
        environment=run_environment(os.environ),
        code=code_allowed(),
    )


def named_faults(task: Task) -> Iterator[Fault]:
    """Yield faults of the task's runner, recipes and score: they cannot be imported or called."""
    if task.runner:
        yield from _named("runner", task.runner, _runner)
        if any(recipe.makes == "adapter" for recipe in task.recipes):
            yield from _named("runner", task.runner, _adaptable)
    for number, recipe in enumerate(task.recipes):
        yield from _named(f"recipes[{number}].train", recipe.train, _train)
    if task.evaluation is not None:
        yield from _named("evaluation.score", task.evaluation.score, _score)


def _named(where: str, name: str, check_it: Any) -> list[Fault]:
    fix = f"Correct {name}, or install what it imports where workers run."
    return list(check.guarded(where, fix, lambda: check_it(where, load_name(name))))


def _runner(where: str, runner: Any) -> Iterator[Fault]:
    if not callable(runner):
        yield Fault(where, f"{check.quoted(runner)} is not a class.", "Name a class.")
        return
    try:
        signature = inspect.signature(runner)
        signature.bind(_FOLDER, **dict.fromkeys(_KEYWORDS))
    except TypeError as error:
        yield Fault(
            where,
            f"It cannot be constructed with a folder and {', '.join(_KEYWORDS)}: {error}.",
            "Write `__init__(self, folder, *, architectures, device, dtype)`.",
        )
    for name in _METHODS:
        if not callable(getattr(runner, name, None)):
            yield Fault(where, f"It has no method `{name}`.", f"Write `{name}`.")


def _adaptable(where: str, runner: Any) -> Iterator[Fault]:
    if not callable(getattr(runner, "adapted", None)):
        yield Fault(
            where,
            "It has no method `adapted`, but a recipe makes adapters.",
            "Write `adapted`, or make full versions.",
        )


def _train(where: str, train: Any) -> Iterator[Fault]:
    return check.callable_faults(where, train, "request, progress")


def _score(where: str, score: Any) -> Iterator[Fault]:
    return check.callable_faults(where, score, "request")


def _faults(points: Sequence[EntryPoint]) -> list[Fault]:
    tasks, faults = declared(points)
    return faults or [fault for task in tasks for fault in named_faults(task)]


if __name__ == "__main__":
    # Work for tasks that are already offered has priority.
    os.nice(10)
    answer_of(_faults)
