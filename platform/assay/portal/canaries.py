"""Canary evaluations and stated models, for the page of a hosted version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Max, Min

from assay.portal.access import may
from governance.permissions import Action
from governance.principals import Principal
from registry.catalog import TASKS
from registry.datasets.models import DatasetVersion
from registry.evaluations.drift import drift_in_words
from registry.evaluations.models import Evaluation
from registry.evaluations.selectors import evaluations_to_compare, evaluations_visible_to
from registry.versions.models import ModelVersion
from workers.deployments.models import StatedModel
from workers.deployments.stated_models import stated_of_version
from workers.schedules.models import Schedule
from workers.schedules.watching import watch_choices, watching

# Maximum number of evaluations in a chart, and of charts on the page.
EVALUATIONS_DRAWN, CHARTS_MAX = 60, 6
STATED_SHOWN = 40


@dataclass(frozen=True, slots=True)
class CanaryChart:
    """One metric of repeated evaluations on the same rows."""

    id: str
    title: str
    data: str
    chart: dict[str, Any]
    drift: str


@dataclass(frozen=True, slots=True)
class Watched:
    """The schedule, its data to choose from, the charts, and the models that answers stated."""

    schedule: Schedule | None
    choices: list[DatasetVersion]
    charts: list[CanaryChart]
    stated: list[StatedModel]


def watched(actor: Principal, version: ModelVersion) -> Watched:
    """Return schedule, data, charts and stated models of a hosted version."""
    schedule = watching(actor, version)
    department = version.model.department.slug
    may_watch = schedule is None and may(
        actor, Action.JOB_CREATE, kind="job", department=department
    )
    return Watched(
        schedule=schedule,
        choices=watch_choices(actor, version) if may_watch else [],
        charts=canary_charts(actor, version),
        stated=list(stated_of_version(actor, version)[:STATED_SHOWN]),
    )


def canary_charts(actor: Principal, version: ModelVersion) -> list[CanaryChart]:
    """Return a chart for each metric of evaluations that were repeated on the same rows."""
    task = TASKS.get(version.model.task)
    if task is None:
        return []
    rows = evaluations_to_compare(actor).filter(version=version).prefetch_related(None)
    repeated = (
        evaluations_visible_to(actor)
        .filter(version=version)
        .order_by()
        .values("dataset_version", "sample_size")
        .annotate(first=Min("pk"), last=Max("pk"))
        .filter(last__gt=F("first"))
        .order_by("first")
    )
    charts: list[CanaryChart] = []
    for group in repeated[:CHARTS_MAX]:
        same = rows.filter(
            dataset_version=group["dataset_version"], sample_size=group["sample_size"]
        )
        newest = list(same.filter(pk__gt=group["first"]).order_by("-pk")[:EVALUATIONS_DRAWN])
        drawn = [same.get(pk=group["first"]), *reversed(newest)]
        for metric in task.metrics:
            if _band(drawn[0], metric.name) is None:
                continue
            charts.append(
                CanaryChart(
                    id=f"canary-{len(charts)}",
                    title=metric.title,
                    data=f"{drawn[0].dataset_version}, {drawn[0].sample_size:,} rows",
                    chart=_chart(metric.name, metric.title, drawn),
                    drift=drift_in_words(drawn[-1].details.get("drift", {})),
                )
            )
    return charts[:CHARTS_MAX]


def _chart(name: str, title: str, evaluations: list[Evaluation]) -> dict[str, Any]:
    bands = [_band(each, name) for each in evaluations]
    first = bands[0]
    size = len(evaluations)
    edges = [
        ("95% interval, highest", 0, [band and band["high"] for band in bands], "+1"),
        ("95% interval, lowest", 0, [band and band["low"] for band in bands], False),
        ("first evaluation, highest", 1, [first and first["high"]] * size, "+1"),
        ("first evaluation, lowest", 1, [first and first["low"]] * size, False),
    ]
    return {
        "type": "line",
        "points": True,
        "labels": [f"{each.started_at:%-d %b %H:%M}" for each in evaluations],
        "series": [
            {"name": title, "color": 0, "data": [each.metrics.get(name) for each in evaluations]},
            *(
                {"name": edge, "color": color, "dashed": True, "data": data, "fill": fill}
                for edge, color, data, fill in edges
            ),
        ],
    }


def _band(evaluation: Evaluation, name: str) -> Mapping[str, Any] | None:
    band: Mapping[str, Any] | None = evaluation.intervals.get("metrics", {}).get(name)
    return band
