"""A job's request as rows for its page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from assay.portal.forms.models import RESOURCES, setting_title
from registry.catalog import TASKS
from workers.jobs.models import Job, JobKind

# Members of a spec that name a version, by the row's title.
_VERSIONS = {
    "base": "Base version",
    "version": "Version",
    "judge": "Judge of the answers",
    "embedding": "Embedding version",
}


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One member of the request, with the page of the object that it names."""

    title: str
    value: str
    url: str = ""


def request_rows(job: Job) -> list[RequestRow]:
    """Return the objects that the job's request names."""
    return list(_objects(job))


def setting_rows(job: Job) -> list[RequestRow]:
    """Return the settings of the job's request: hyperparameters, rows and resources."""
    spec = job.spec
    settings = {setting_title(name): value for name, value in _part(spec, "hyperparameters")}
    if "max_rows" in spec:
        settings["Maximum rows"] = spec["max_rows"] or "all"
    settings |= {RESOURCES.get(name, name): value for name, value in _part(spec, "resources")}
    return [
        RequestRow(title, _words(value)) for title, value in settings.items() if value is not None
    ]


def _part(spec: dict[str, Any], name: str) -> list[tuple[str, Any]]:
    return list((spec.get(name) or {}).items())


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    # Settings in full, as they were typed: a learning rate of 0.0002.
    return f"{value:g}" if isinstance(value, float) else str(value)


def _objects(job: Job) -> Iterator[RequestRow]:
    spec = job.spec
    task = TASKS.get(spec.get("task", ""))
    if task is not None:
        yield RequestRow("Task", task.title)
    if method := spec.get("method"):
        titles = {recipe.method: recipe.title for recipe in (task.recipes if task else ())}
        yield RequestRow("Method", titles.get(method, method))
    if model := spec.get("model_name"):
        yield RequestRow("Model", model, reverse("portal:model", args=[model]))
    if intake := spec.get("intake"):
        yield RequestRow("Intake", f"Intake {intake}", reverse("portal:intake", args=[intake]))
    if job.kind == JobKind.INDEX and (base := spec.get("base_name")):
        yield RequestRow("Knowledge base", base, reverse("portal:knowledge_base", args=[base]))
    for key, title in _VERSIONS.items():
        name = spec.get(f"{key}_name")
        if name and not (key == "base" and job.kind == JobKind.INDEX):
            yield RequestRow(title, name, reverse("portal:version", args=[spec[key]]))
    if data := spec.get("dataset_name"):
        name, _, number = data.rpartition(" v")
        address = reverse("portal:dataset", args=[name], query={"version": number})
        yield RequestRow("Data", data, f"{address}#rows")
