"""The catalogue of tasks. Adding a task is adding one module and naming it here."""

from __future__ import annotations

from governance.errors import InvalidInput
from registry.catalogue import embeddings, text_classification, text_generation
from registry.catalogue.base import Metric, Task

TASKS: dict[str, Task] = {
    module.TASK.name: module.TASK for module in (text_generation, text_classification, embeddings)
}

__all__ = ["TASKS", "Metric", "Task", "get_task"]


def get_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        InvalidInput: the catalogue has no such task.
    """
    task = TASKS.get(name)
    if task is None:
        raise InvalidInput(
            f"There is no task {name[:60]!r}.",
            hint=f"Choose one of {', '.join(sorted(TASKS))}.",
            fields={"task": ["Not a task of the catalogue."]},
        )
    return task
