"""A release under review beside what serves under its name now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from assay.portal.evidence import Drawn, card_diff, drawn, file_changes, newest_per_dataset
from assay.portal.series import metric_by_version
from governance.principals import Principal
from registry.catalogue import TASKS
from registry.evaluations.models import Evaluation
from registry.evaluations.selectors import evaluations_visible_to
from registry.releases.models import Release
from registry.versions.models import ModelVersion
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.selectors import deployments_visible_to


@dataclass(frozen=True, slots=True)
class Subject:
    """What the review page shows of a release."""

    version: ModelVersion
    live: Deployment | None
    replaced: ModelVersion | None
    evidence: list[Drawn]
    files: list[dict[str, Any]]
    card_changes: list[tuple[str, str]]
    trend: dict[str, Any] | None

    @property
    def changed_files(self) -> int:
        return sum(file["change"] != "same" for file in self.files)


def live_deployment(actor: Principal, release: Release) -> Deployment | None:
    """What serves under the release's name now, unless that is this release itself."""
    return (
        deployments_visible_to(actor)
        .filter(
            name=release.deployment_name,
            state__in=(DeploymentState.PENDING, DeploymentState.SERVING),
        )
        .exclude(release_id=release.pk)
        .select_related("release__version__model")
        .first()
    )


def trend(evaluations: list[Evaluation], task: str) -> dict[str, Any] | None:
    """The task's first metric over the model's versions, when there are two or more."""
    entry = TASKS.get(task)
    if entry is None:
        return None
    metric = entry.metric(entry.primary_metric)
    points: dict[int, float] = {}
    for evaluation in evaluations:
        value = evaluation.metrics.get(metric.name)
        if isinstance(value, (int, float)):
            points.setdefault(evaluation.version.number, float(value))
    if len(points) < 2:
        return None
    return metric_by_version([(f"v{n}", points[n]) for n in sorted(points)], metric.title)


def subject_of(actor: Principal, release: Release) -> Subject:
    """The release's version with its evidence, against the live version or its baselines."""
    version = release.version
    live = live_deployment(actor, release)
    replaced = live.release.version if live else None
    wanted = {version.model_id, replaced.model_id if replaced else version.model_id}
    every = list(
        evaluations_visible_to(actor).filter(version__model_id__in=wanted).order_by("-pk")[:200]
    )
    mine = newest_per_dataset(e for e in every if e.version_id == version.pk)
    theirs = {
        e.dataset_version_id: e
        for e in newest_per_dataset(e for e in every if replaced and e.version_id == replaced.pk)
    }
    task = version.model.task
    name = f"v{replaced.number} (live)" if replaced else ""
    return Subject(
        version=version,
        live=live,
        replaced=replaced,
        evidence=[
            drawn(e, task=task, live=theirs.get(e.dataset_version_id), live_name=name) for e in mine
        ],
        files=file_changes(version, replaced),
        card_changes=card_diff(version.card, replaced.card) if replaced else [],
        trend=trend([e for e in every if e.version.model_id == version.model_id], task),
    )
