"""The task catalog: what models can do here, and one page that explains each task."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from assay.portal.code_examples import code_examples
from assay.portal.http import Screen, page_of
from governance.errors import NotFound
from registry.catalog import TASKS, listed_tasks, package_of, unavailable_reason, unavailable_tasks
from registry.catalog.formats import archive_layout, row_fields, sample_lines
from registry.evaluations.models import Evaluation
from registry.evaluations.selectors import newest_evaluations
from registry.versions.selectors import models_by_task, models_visible_to

MODELS_SHOWN = 10


class TaskCatalog(Screen):
    """Every registered task, by family."""

    template_name = "portal/models/task_catalog.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        models = models_by_task(self.actor)
        tasks = sorted(listed_tasks(), key=lambda task: (str(task.family), task.title))
        return {
            "families": [
                (family, [{"task": task, "models": models.get(task.name, 0)} for task in group])
                for family, group in groupby(tasks, key=lambda task: str(task.family))
            ]
        }


class TaskPage(Screen):
    """One task: its API, training and metrics, and its models."""

    template_name = "portal/models/task.html"

    def context(self, *, name: str, **kwargs: Any) -> dict[str, Any]:
        task = TASKS.get(name)
        models = models_visible_to(self.actor).filter(task=name).order_by("name")
        page = page_of(self.request, models, MODELS_SHOWN)
        # Models stay when the package of their task is removed.
        if task is None and name not in unavailable_tasks() and not page.object_list:
            raise NotFound(f"There is no task {name[:60]!r}.")
        context: dict[str, Any] = {
            "name": name,
            "task": task,
            "unavailable": unavailable_reason(name),
            "page": page,
        }
        if task is None:
            return context
        root = f"{self.request.scheme}://{self.request.get_host()}"
        measured = newest_evaluations(self.actor, [model.pk for model in page])
        return {
            **context,
            "package": package_of(name),
            "models": [
                (model, _result(measured.get(model.pk), task.primary_metric)) for model in page
            ],
            "metric": task.metric(task.primary_metric) if task.evaluation else None,
            "examples": code_examples(task, "my-deployment", root),
            "kinds": [
                {
                    "title": kind.title,
                    "fields": row_fields(kind),
                    "shown": archive_layout(kind) or sample_lines(kind),
                }
                for kind in task.row_kinds
            ],
        }


def _result(evaluation: Evaluation | None, metric: str) -> dict[str, Any] | None:
    """Return the newest value of a metric, and its baseline; None when it was not measured."""
    if evaluation is None or metric not in evaluation.metrics:
        return None
    return {
        "value": evaluation.metrics[metric],
        "baseline": evaluation.baseline.get(metric),
        "baseline_name": evaluation.baseline_name,
        "evaluation": evaluation,
    }
