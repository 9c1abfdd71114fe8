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
    """The most that one job can get: devices and GiB of memory on one machine, and machines.

    `memory_gib` is None where it is not known.
    """

    devices: int
    nodes: int
    memory_gib: int | None


def resources_offered() -> Largest:
    """Return the most that a job can get here.

    The settings describe the machines without a node's identity, those of Slurm included. Each
    enrolled node has last reported its own devices and memory.
    """
    working = (NodeState.ENROLLED, NodeState.CORDONED, NodeState.DRAINING)
    reported = list(Node.objects.filter(state__in=working).values_list("facts", flat=True))
    devices = [len(facts.get("devices", ())) for facts in reported]
    memory = [facts.get("memory_bytes", 0) // GIB for facts in reported]
    known = settings.JOB_MAX_MEMORY_GIB
    return Largest(
        devices=max(settings.JOB_MAX_DEVICES, *devices, 1),
        nodes=settings.JOB_MAX_NODES,
        memory_gib=max(known, *memory, 1) if known else None,
    )


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
    most = resources_offered()
    _refuse_more("devices", resources.devices, most.devices, "{:,} devices on one machine")
    _refuse_more("nodes", resources.nodes, most.nodes, "{:,} machines")
    _refuse_more("memory_gib", resources.memory_gib, most.memory_gib, "{:,} GiB on one machine")
    if resources.processes > 1 and not recipe.distributed:
        names = [name for name in ("devices", "nodes") if getattr(resources, name) > 1]
        raise _refused(names, f"{recipe.title} runs in one process; leave this at 1.")
    return resources.model_dump(exclude_defaults=True)


def _refuse_more(name: str, wanted: int | None, most: int | None, amount: str) -> None:
    if wanted is not None and most is not None and wanted > most:
        raise _refused([name], f"No job here can ever get more than {amount.format(most)}.")


def _refused(names: list[str], sentence: str) -> InvalidInput:
    return InvalidInput(
        f"The requested resources cannot be given: {', '.join(names)}. {sentence}",
        fields={f"resources.{name}": [sentence] for name in names},
    )
