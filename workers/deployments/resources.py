"""Deployments as resources of policy decisions, and as columns for filtered lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Case, CharField, Value, When

from governance.policy.columns import COLUMNS, Column
from governance.policy.engine import Resource
from registry.catalog import TASKS
from registry.releases.models import Release
from registry.versions.classification import classification_expression, version_classifications
from workers.deployments.models import Deployment


def task_modality(task: str) -> str:
    """Return a task's modality (`text`, `image`, `audio`, …); empty for an unknown task."""
    declaration = TASKS.get(task)
    return "" if declaration is None else declaration.modality


def deployment_attributes(
    release: Release, *, name: str, departments: Iterable[str], classification: str
) -> dict[str, Any]:
    """Return the attributes of a deployment of `release` that policy rules may use.

    `classification` is that of the data behind its version.
    """
    task = release.version.model.task
    return {
        "classification": classification,
        "departments": sorted(departments),
        "environment": release.environment,
        "modality": task_modality(task),
        "name": name,
        "task": task,
        "visibility": release.visibility,
    }


def deployment_context(release: Release) -> dict[str, Any]:
    """Return the context of a decision about a deployment of `release`."""
    return {
        "environment": release.environment,
        "modality": task_modality(release.version.model.task),
    }


def _resource(release: Release, *, identity: str, name: str) -> Resource:
    return Resource(
        type="deployment",
        id=identity,
        name=name,
        department=release.department.slug,
        attributes=deployment_attributes(
            release,
            name=name,
            departments=release.departments.values_list("slug", flat=True),
            classification=version_classifications([release.version_id])[release.version_id],
        ),
    )


def deployment_resource(deployment: Deployment) -> Resource:
    """Return a deployment's resource; it belongs to the department of its release."""
    return _resource(deployment.release, identity=str(deployment.pk), name=deployment.name)


def new_deployment_resource(release: Release) -> Resource:
    """Return the resource of a deployment that is about to be created from a release."""
    return _resource(release, identity="", name=release.deployment_name)


def _modality_expression() -> Case:
    tasks: dict[str, list[str]] = {}
    for task in TASKS.values():
        tasks.setdefault(task.modality, []).append(task.name)
    whens = [
        When(release__version__model__task__in=names, then=Value(modality))
        for modality, names in tasks.items()
    ]
    return Case(*whens, default=Value(""), output_field=CharField())


def register_columns() -> None:
    """Register columns for lists of deployments that only this context can compute."""
    COLUMNS["deployment"] |= {
        "classification": Column(text=lambda: classification_expression("release__version__")),
        "modality": Column(text=_modality_expression),
    }
