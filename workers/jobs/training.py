"""Versions that training can start from."""

from __future__ import annotations

from django.db.models import QuerySet

from governance.principals import Principal
from registry.versions.models import ModelVersion, VersionKind, VersionState
from registry.versions.selectors import versions_visible_to

# Which bases a task may be adapted from: a classifier also stands on an encoder for embeddings.
BASE_TASKS: dict[str, frozenset[str]] = {
    "text-classification": frozenset({"text-classification", "embeddings"}),
}
BASE_KINDS = (VersionKind.BASE, VersionKind.FULL)


def base_tasks(task: str) -> frozenset[str]:
    """Return the tasks whose models a model for `task` may be adapted from."""
    return BASE_TASKS.get(task, frozenset({task}))


def training_bases(actor: Principal, task: str) -> QuerySet[ModelVersion]:
    """Return the trusted versions that `actor` sees and a model for `task` can be adapted from."""
    return versions_visible_to(actor).filter(
        model__task__in=base_tasks(task), state=VersionState.TRUSTED, kind__in=BASE_KINDS
    )
