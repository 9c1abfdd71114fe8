"""Offers of a worker, which it reports for each task. Does not use Django."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field

from registry.catalog import package_of
from workers.run.storable import cleaned

TASKS_MAX = 300
# Most workers that a sentence about a task names.
SHOWN_MAX = 3
PACKAGE_MAX, LACKS_MAX = 200, 500


TaskName = Annotated[str, Field(min_length=1, max_length=60)]


@dataclass(frozen=True, slots=True)
class TaskOffer:
    """One task of a worker: the package that provides it there, and in `lacks` the reason why the
    worker does not offer it; empty if it does."""

    package: Annotated[str, Field(max_length=PACKAGE_MAX)]
    lacks: Annotated[str, Field(max_length=LACKS_MAX)] = ""


# The tasks of a worker by name.
Offers = Mapping[str, TaskOffer]


def offers_cut(offers: Offers) -> dict[str, TaskOffer]:
    """Return offers within the bounds; long texts are cut."""
    return {
        name: TaskOffer(cleaned(each.package)[:PACKAGE_MAX], cleaned(each.lacks)[:LACKS_MAX])
        for name, each in sorted(offers.items())[:TASKS_MAX]
    }


def offers_to_json(offers: Offers) -> dict[str, dict[str, str]]:
    """Return offers in the form that the database stores."""
    return {name: asdict(each) for name, each in offers_cut(offers).items()}


def lacks_sentence(
    needed: Collection[str], reported: Mapping[str, Mapping[str, Any]], kind: str
) -> str:
    """Return a sentence on a task that no worker offers, its package, and the reason of each
    worker; empty if a worker offers all tasks."""
    faults = {
        worker: next(((name, what) for name in needed if (what := lack(tasks, name))), None)
        for worker, tasks in reported.items()
    }
    lacking = {worker: fault for worker, fault in faults.items() if fault is not None}
    if len(lacking) < len(faults):
        return ""
    name = next(iter(lacking.values()))[0] if lacking else next(iter(needed), "")
    # The web process may lack the package that workers know.
    package = package_of(name) or next(
        (str(tasks[name]["package"]) for tasks in reported.values() if name in tasks), ""
    )
    of_package = f" (package {package})" if package else ""
    sentences = [f"{worker} lacks it: {what}" for worker, (_, what) in sorted(lacking.items())]
    more = len(sentences) - SHOWN_MAX
    rest = f" {more} more lack it." if more > 0 else ""
    return f"No {kind} offers the task {name}{of_package}. {' '.join(sentences[:SHOWN_MAX])}{rest}"


def lack(tasks: Mapping[str, Any], name: str) -> str:
    """Return why a worker that reported `tasks` does not offer one of them; empty if it does."""
    offer = tasks.get(name)
    if offer is None:
        return "No package that is installed there provides it."
    return str(offer["lacks"])
