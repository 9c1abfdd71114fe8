"""Read the machines that a job requests, and check them against this installation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from pydantic import ValidationError

from governance.errors import InvalidInput
from registry.catalog.declaration import Recipe
from workers.jobs.models import Job
from workers.run.order import Resources


def resources_of(job: Job) -> Resources:
    """Return the machines that a job requested."""
    return Resources.model_validate(job.spec.get("resources", {}))


def resources_checked(recipe: Recipe, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the requested resources as a job's spec keeps them; empty where none was requested.

    Raises:
        InvalidInput: malformed, more than any machine here can ever give, or several processes for
            a recipe that one process runs; `fields` says where.
    """
    wanted = {name: value for name, value in (given or {}).items() if value is not None}
    if not wanted:
        return {}
    try:
        resources = Resources.model_validate(wanted)
    except ValidationError as error:
        names = sorted({str(fault["loc"][0]) for fault in error.errors()})
        raise _refused(names, "It is not a number within the bounds of a job.") from error
    limits = {"devices": settings.JOB_MAX_DEVICES, "nodes": settings.JOB_MAX_NODES}
    for name, most in limits.items():
        if getattr(resources, name) > most:
            noun = "devices on one machine" if name == "devices" else "machines"
            raise _refused([name], f"No job here can ever get more than {most} {noun}.")
    if resources.processes > 1 and not recipe.distributed:
        names = [name for name in limits if getattr(resources, name) > 1]
        raise _refused(names, f"{recipe.title} runs in one process; leave this at 1.")
    return resources.model_dump(exclude_defaults=True)


def _refused(names: list[str], sentence: str) -> InvalidInput:
    return InvalidInput(
        f"The requested resources cannot be given: {', '.join(names)}. {sentence}",
        fields={f"resources.{name}": [sentence] for name in names},
    )
