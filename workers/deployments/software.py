"""Compare the software of processes: packages of tasks that differ, and changed answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from django.utils import timezone
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from governance.bounds import TASK_MAX
from governance.errors import InvalidInput
from registry.catalog import codes_here
from registry.catalog.code import PACKAGES_MAX
from registry.catalog.engines import EngineName
from registry.releases.equivalence.models import EquivalenceCheck
from registry.releases.equivalence.selectors import checks_changed
from workers.deployments.models import Deployment, WorkerKey
from workers.deployments.stated_models import differing_now
from workers.deployments.states import LIVE
from workers.measurements.measuring import CODE, LOOPS_KEPT, SOFTWARE
from workers.measurements.models import Measurement


class _Packages(TypedDict):
    digest: Annotated[str, Field(max_length=64)]
    packages: Annotated[str, Field(max_length=PACKAGES_MAX)]


_REPORTED = TypeAdapter(
    Annotated[dict[Annotated[str, Field(max_length=TASK_MAX)], _Packages], Field(max_length=200)],
    config=ConfigDict(strict=True),
)
# Workers that were silent for longer are not compared.
_SEEN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class CodeDifference:
    """A task whose packages differ between another process and this one, or that only one of them
    has; `there` and `here` name the packages, empty for none."""

    task: str
    process: str
    there: str
    here: str

    def __str__(self) -> str:
        here, there = (each or "no package" for each in (self.here, self.there))
        return f"{self.process} has {there} for {self.task}, and this process has {here}."


def code_checked(reported: Mapping[str, Any]) -> dict[str, _Packages]:
    """Validate and return a worker's report of its packages by task. Raises InvalidInput."""
    try:
        return _REPORTED.validate_python(reported)
    except ValidationError as error:
        raise InvalidInput(
            "The packages of tasks that the worker reports are not valid.",
            fields={"code": ["Up to 200 tasks, each with a digest and names of packages."]},
        ) from error


def code_differences() -> list[CodeDifference]:
    """Return differences of live engine workers and controllers from this process (two queries)."""
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


def live_checks_changed() -> list[EquivalenceCheck]:
    """Return comparisons of live deployments, with a worker's current software, that found
    different answers or none to compare. Providers compute the answers of hosted models."""
    live = Deployment.objects.filter(state__in=LIVE).exclude(release__engine=EngineName.HOSTED)
    return checks_changed(list(live.values_list("release", flat=True)))


def software_measure() -> None:
    """Store three counts: processes by task whose packages differ from this one's; comparisons by
    live deployment that found different answers; and names by deployment that a provider's answers
    stated, and the description does not."""
    Measurement.keep(
        SOFTWARE,
        {
            "code": Counter(each.task for each in code_differences()),
            "answers": Counter(each.release.deployment_name for each in live_checks_changed()),
            "stated": Counter(each.deployment.name for each in differing_now()),
        },
    )


def controllers_differ(figures: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Count, by task, the controllers whose reported code differs from this process."""
    here = codes_here()
    return Counter(
        task
        for there in figures
        for task in {*here, *there}
        if _digest(here, task) != _digest(there, task)
    )


def _digest(codes: Mapping[str, Any], task: str) -> str:
    return str(codes.get(task, {}).get("digest", ""))


def _packages(codes: Mapping[str, Any], task: str) -> str:
    entry = codes.get(task)
    return f"{entry['packages']} ({entry['digest'][:12]})" if entry else ""
