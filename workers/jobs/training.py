"""Versions that training can start from."""

from __future__ import annotations

from django.db.models import QuerySet

from governance.principals import Principal
from registry.catalog import get_task
from registry.catalog.declaration import Recipe
from registry.versions.models import ModelVersion, VersionKind, VersionState
from registry.versions.selectors import versions_visible_to

BASE_KINDS = (VersionKind.BASE, VersionKind.FULL)


def base_tasks(task: str, recipe: Recipe) -> frozenset[str]:
    """Return the tasks whose models `recipe` can make a model for `task` from."""
    return recipe.bases or frozenset({task})


def training_bases(actor: Principal, task: str) -> QuerySet[ModelVersion]:
    """Return the trusted versions that `actor` sees and a recipe of `task` can start from."""
    tasks = {name for recipe in get_task(task).recipes for name in base_tasks(task, recipe)}
    return versions_visible_to(actor).filter(
        model__task__in=tasks, state=VersionState.TRUSTED, kind__in=BASE_KINDS
    )
