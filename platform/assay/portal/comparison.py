"""Comparisons to draw: a release with the live deployment of its name, or two versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from assay.portal.evidence import EvaluationCharts, drawn
from assay.portal.series import metric_by_version
from governance.principals import Principal
from registry.catalog import TASKS
from registry.evaluations.models import Evaluation
from registry.releases.comparison.build import Comparison, VersionComparison, version_compare
from registry.releases.models import Release
from registry.versions.models import ModelVersion
from workers.deployments.comparison import Reach, release_compare_live
from workers.deployments.models import Deployment


@dataclass(frozen=True, slots=True)
class Subject:
    """Comparison of a release, for the review page."""

    version: ModelVersion
    live: Deployment | None
    replaced: ModelVersion | None
    comparison: Comparison
    reach: Reach
    evidence: list[EvaluationCharts]
    trend: dict[str, Any] | None

    @property
    def changed_files(self) -> int:
        return self.comparison.files.changed


@dataclass(frozen=True, slots=True)
class Pair:
    """Context of the page on two versions; `replaced` is the older side."""

    version: ModelVersion
    replaced: ModelVersion
    comparison: VersionComparison
    evidence: list[EvaluationCharts]


def pair_of(actor: Principal, version: ModelVersion, other: ModelVersion) -> Pair:
    """Compare two versions; raises as `version_compare`."""
    comparison = version_compare(actor=actor, version=version, other=other)
    return Pair(version, other, comparison, [drawn(each) for each in comparison.measured])


def trend(evaluations: list[Evaluation], task: str) -> dict[str, Any] | None:
    """Return the task's primary metric by version, on data not used for training; None with fewer
    than two such versions."""
    entry = TASKS.get(task)
    if entry is None or not entry.primary_metric:
        return None
    metric = entry.metric(entry.primary_metric)
    points: dict[int, float] = {}
    for evaluation in evaluations:
        value = evaluation.metrics.get(metric.name)
        if isinstance(value, (int, float)) and not evaluation.on_training_data:
            points.setdefault(evaluation.version.number, float(value))
    if len(points) < 2:
        return None
    return metric_by_version([(f"v{n}", points[n]) for n in sorted(points)], metric.title)


def subject_of(actor: Principal, release: Release) -> Subject:
    """Compare the release's version and evidence with the live version or its baselines."""
    compared = release_compare_live(actor=actor, release=release)
    comparison = compared.comparison
    return Subject(
        version=release.version,
        live=compared.live,
        replaced=comparison.live.version if comparison.live is not None else None,
        comparison=comparison,
        reach=compared.reach,
        evidence=[drawn(each) for each in comparison.measured],
        trend=trend(comparison.evaluations, release.version.model.task),
    )
