"""Rows that show a job's request on its page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from assay.portal.forms.models import RESOURCES, setting_title
from registry.catalog import TASKS
from workers.jobs.models import Job, JobKind

# Titles of the versions that a request names, by their member.
_VERSIONS = {
    "base": "Base version",
    "version": "Version",
    "judge": "Judge of the answers",
    "embedding": "Embedding version",
}


@dataclass(frozen=True, slots=True)
class RequestRow:
    """An object that the request names, with its page."""

    title: str
    value: str
    url: str = ""


def setting_rows(job: Job) -> list[tuple[str, str]]:
    """Return the titles and values of the request's hyperparameters, rows and resources."""
    spec = job.spec
    hyperparameters, resources = spec.get("hyperparameters") or {}, spec.get("resources") or {}
    settings = {setting_title(name): value for name, value in hyperparameters.items()}
    if "max_rows" in spec:
        settings["Maximum rows"] = spec["max_rows"] or "all"
    settings |= {RESOURCES.get(name, name): value for name, value in resources.items()}
    return [(title, _words(value)) for title, value in settings.items() if value is not None]


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    # More digits than other numbers on pages: a learning rate of 0.0002.
    return f"{value:g}" if isinstance(value, float) else str(value)


def request_rows(job: Job) -> Iterator[RequestRow]:
    """Yield the objects that the job's request names."""
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
