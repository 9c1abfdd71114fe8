"""Compare the packages of tasks in this process with those of the other processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from registry.catalog.code import codes_here
from workers.deployments.models import WorkerKey
from workers.measurements.measuring import CODE, LOOPS_KEPT
from workers.measurements.models import Measurement

# A worker that was silent for longer is not compared.
_SEEN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class CodeDifference:
    """A task that another process runs with other packages, or only one of both has: the names of
    the packages there and here, empty for none."""

    task: str
    process: str
    there: str
    here: str

    def __str__(self) -> str:
        here, there = (each or "no package" for each in (self.here, self.there))
        return f"{self.process} has {there} for {self.task}, and this process has {here}."


def code_differences() -> list[CodeDifference]:
    """Return how engine workers and controllers that live differ from this process, in two
    queries."""
    here = codes_here()
    now = timezone.now()
    workers = WorkerKey.objects.filter(seen_at__gte=now - _SEEN).exclude(environments={})
    reported: list[tuple[str, Any]] = list(workers.values_list("worker", "code"))
    controllers = Measurement.objects.filter(
        name__startswith=CODE, measured_at__gte=now - LOOPS_KEPT
    )
    reported += [
        (f"the controller {name.removeprefix(CODE)}", figures)
        for name, figures in controllers.values_list("name", "figures")
    ]
    return [
        CodeDifference(task, process, _packages(there, task), _packages(here, task))
        for process, there in sorted(reported)
        for task in sorted({*here, *there})
        if _digest(here, task) != _digest(there, task)
    ]


def _digest(codes: Mapping[str, Any], task: str) -> str:
    return str(codes.get(task, {}).get("digest", ""))


def _packages(codes: Mapping[str, Any], task: str) -> str:
    known = codes.get(task)
    return f"{known['packages']} ({known['digest'][:12]})" if known else ""
