"""Read the machines that a job requests, and check them against this installation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from pydantic import ValidationError

from governance.errors import InvalidInput
from registry.catalog.declaration import Recipe
from workers.jobs.models import Job
from workers.nodes.models import Node, NodeState
from workers.run.order import Resources

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Largest:
    """Largest possible request of one job: devices and GiB of memory on one machine, and machines.

    `memory_gib` is None if the memory of the machines is not configured.
    """

    devices: int
    nodes: int
    memory_gib: int | None


def resources_offered() -> Largest:
    """Return the largest request that this installation can satisfy.

    The settings describe machines that are not nodes, including those of Slurm. Nodes report their
    own devices and memory.
    """
    working = (NodeState.ENROLLED, NodeState.CORDONED, NodeState.DRAINING)
    reported = list(Node.objects.filter(state__in=working).values_list("facts", flat=True))
    devices = [len(facts.get("devices", ())) for facts in reported]
    memory = [facts.get("memory_bytes", 0) // GIB for facts in reported]
    configured = settings.JOB_MAX_MEMORY_GIB
    return Largest(
        devices=max(settings.JOB_MAX_DEVICES, *devices, 1),
        nodes=settings.JOB_MAX_NODES,
        memory_gib=max(configured, *memory, 1) if configured else None,
    )


def resources_of(job: Job) -> Resources:
    """Return the machines that a job requested."""
    return Resources.model_validate(job.spec.get("resources", {}))


def resources_checked(recipe: Recipe, request: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the requested resources in the form of a job's spec; empty if none are requested.

    Raises:
        InvalidInput: the request is malformed, larger than any machine here, or for several
            processes of a recipe that runs in one; `fields` says where.
    """
    requested = {name: value for name, value in (request or {}).items() if value is not None}
    if not requested:
        return {}
    try:
        resources = Resources.model_validate(requested)
    except ValidationError as error:
        names = sorted({str(fault["loc"][0]) for fault in error.errors()})
        raise _refused(names, "It is not a number within the bounds of a job.") from error
    most = resources_offered()
    _refuse_more("devices", resources.devices, most.devices, "{:,} devices on one machine")
    _refuse_more("nodes", resources.nodes, most.nodes, "{:,} machines")
    _refuse_more("memory_gib", resources.memory_gib, most.memory_gib, "{:,} GiB on one machine")
    if resources.processes > 1 and not recipe.distributed:
        names = [name for name in ("devices", "nodes") if getattr(resources, name) > 1]
        raise _refused(names, f"{recipe.title} runs in one process; leave this at 1.")
    return resources.model_dump(exclude_defaults=True)


def _refuse_more(name: str, requested: int | None, most: int | None, amount: str) -> None:
    if requested is not None and most is not None and requested > most:
        raise _refused([name], f"No job here can ever get more than {amount.format(most)}.")


def _refused(names: list[str], sentence: str) -> InvalidInput:
    return InvalidInput(
        f"The requested resources are not available: {', '.join(names)}. {sentence}",
        fields={f"resources.{name}": [sentence] for name in names},
    )
