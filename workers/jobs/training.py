"""Versions that training can start from."""

from __future__ import annotations

from django.db.models import QuerySet

from governance.principals import Principal
from registry.catalog import TASKS, get_task
from registry.catalog.declaration import Recipe, Task
from registry.versions.models import ModelVersion, VersionKind, VersionState
from registry.versions.selectors import versions_visible_to
from registry.versions.weights import QUANTIZATION

BASE_KINDS = (VersionKind.BASE, VersionKind.FULL)


def base_tasks(task: str, recipe: Recipe) -> frozenset[str]:
    """Return the tasks whose models can be the base of a model that `recipe` makes for `task`."""
    return recipe.bases or frozenset({task})


def adapter_recipe(task: Task) -> Recipe | None:
    """Return the first recipe of `task` that makes adapters, or None if it has no adapters."""
    return next((each for each in task.recipes if each.makes == VersionKind.ADAPTER), None)


def training_bases(actor: Principal, task: str) -> QuerySet[ModelVersion]:
    """Return the trusted versions that `actor` sees and a recipe of `task` can start from."""
    recipes = get_task(task).recipes
    return _bases(actor, {name for each in recipes for name in base_tasks(task, each)})


def adapter_bases(actor: Principal) -> QuerySet[ModelVersion]:
    """Return the trusted versions that `actor` sees and an adapter of some task can stand on."""
    tasks = {
        base
        for task in TASKS.values()
        if (recipe := adapter_recipe(task))
        for base in base_tasks(task.name, recipe)
    }
    # The weights of a GGUF that was kept as delivered cannot be adapted.
    return _bases(actor, tasks).exclude(parameters__has_key=QUANTIZATION)


def _bases(actor: Principal, tasks: set[str]) -> QuerySet[ModelVersion]:
    return versions_visible_to(actor).filter(
        model__task__in=tasks, state=VersionState.TRUSTED, kind__in=BASE_KINDS
    )
