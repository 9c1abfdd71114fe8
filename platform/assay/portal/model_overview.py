"""Parts of a model's page: live deployments, card, trend, usage and reviews."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Prefetch, Q

from assay.portal.reads import usage_days
from assay.portal.series import GateLine, metric_trend, request_bars
from governance.database.narrow import narrowed
from governance.principals import Principal
from governance.reviews.models import Decision, Review, Verdict
from governance.reviews.selectors import reviews_visible_to
from governance.usage.models import UsageTotal
from governance.usage.selectors import usage_totals_visible_to
from registry.catalog.declaration import Metric, Task
from registry.evaluations.models import Gate
from registry.evaluations.selectors import evaluations_visible_to
from registry.releases.models import Release
from registry.releases.selectors import releases_visible_to
from registry.versions.models import Model, ModelVersion
from registry.versions.selectors import versions_visible_to
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.selectors import HEAVY, deployments_visible_to

LIVE_SHOWN = 20
RELEASES_SHOWN = 5
EVALUATIONS_READ = 400
# One color each, and as many dashed lines of gates.
DATASETS_DRAWN = 4
USAGE_DAYS = 14


def live_deployments(actor: Principal, model: Model) -> list[Deployment]:
    """Return the serving deployments of the model's versions that the actor may see, by name."""
    rows = deployments_visible_to(actor).filter(
        release__version__model=model, state=DeploymentState.SERVING
    )
    rows = rows.defer(*HEAVY).prefetch_related(None).prefetch_related("release__departments")
    return list(rows.order_by("name")[:LIVE_SHOWN])


@dataclass(frozen=True, slots=True)
class Card:
    """The model card of one version."""

    version_id: int
    number: int
    text: str
    live: bool


def model_card(actor: Principal, model: Model, live: Collection[int]) -> Card | None:
    """Return the newest card of the versions with `live` numbers, or else of all versions."""
    rows = versions_visible_to(actor).filter(model=model).exclude(card="")
    rows = rows.annotate(is_live=Q(number__in=live)).order_by("-is_live", "-number")
    card = rows.values_list("pk", "number", "card", "is_live").first()
    return None if card is None else Card(*card)


@dataclass(frozen=True, slots=True)
class Trend:
    """A metric over the versions of a model, and the metrics that can be chosen."""

    metric: Metric
    metrics: list[Metric]
    chart: dict[str, Any]


def model_trend(
    actor: Principal,
    model: Model,
    task: Task,
    chosen: str,
    gates: Iterable[Gate],
    live: Collection[int],
) -> Trend | None:
    """Return the trend of the metric `chosen`, or else of the primary one, without results on
    training data; None unless a metric has values of two versions."""
    measured = _measured(actor, model, task)
    metrics = [metric for metric in task.metrics if metric.name in measured]
    if not metrics:
        return None
    names = [chosen, task.primary_metric, metrics[0].name]
    name = next(name for name in names if name in measured)
    metric = task.metric(name)
    values = dict(list(measured[name].items())[:DATASETS_DRAWN])
    lines = [
        GateLine(
            f"Gate {'≥' if gate.comparator == '>=' else '≤'} {gate.threshold:g} "
            f"on {gate.dataset.name}",
            gate.dataset.name,
            gate.threshold,
        )
        for gate in gates
        if gate.metric == name
    ]
    return Trend(metric, metrics, metric_trend(values, lines, live))


def _measured(actor: Principal, model: Model, task: Task) -> dict[str, dict[str, dict[int, float]]]:
    """Return the newest value of each metric, dataset and version, for the metrics that two or more
    versions have; the datasets with most versions first."""
    rows = evaluations_visible_to(actor).filter(version__model=model, on_training_data=False)
    newest = rows.order_by("-pk").values_list(
        "version__number", "dataset_version__dataset__name", "metrics"
    )
    measured: dict[str, dict[str, dict[int, float]]] = {}
    for number, dataset, metrics in newest[:EVALUATIONS_READ]:
        for metric in task.metrics:
            value = metrics.get(metric.name)
            if isinstance(value, (int, float)):
                values = measured.setdefault(metric.name, {}).setdefault(dataset, {})
                values.setdefault(number, float(value))
    return {
        name: dict(sorted(datasets.items(), key=lambda each: (-len(each[1]), each[0])))
        for name, datasets in measured.items()
        if len({number for values in datasets.values() for number in values}) > 1
    }


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """Requests to a model's versions that the actor may see."""

    requests: int
    failed: int
    chart: dict[str, Any]


def model_usage(actor: Principal, model: Model) -> ModelUsage | None:
    """Return the requests of the last `USAGE_DAYS` days; None without any."""
    digests = ModelVersion.objects.order_by().filter(model=model).values("digest")
    totals = usage_totals_visible_to(actor, UsageTotal.By.VERSION, days=USAGE_DAYS)
    days = usage_days(totals.filter(name__in=digests, jobs=False), USAGE_DAYS)
    requests = sum(day["requests"] for day in days)
    if not requests:
        return None
    return ModelUsage(requests, sum(day["failed"] for day in days), request_bars(days))


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A release, its newest review and the verdicts of the review's current round."""

    release: Release
    review: Review | None
    verdicts: list[Decision]


def model_reviews(actor: Principal, model: Model) -> list[Reviewed]:
    """Return the newest releases of the model's versions that the actor may see."""
    rows = releases_visible_to(actor).filter(version__model=model)
    rows = narrowed(
        rows.order_by("-pk"),
        *("state", "environment", "deployment_name", "created_at", "version__number"),
    )
    releases = list(rows[:RELEASES_SHOWN])
    decisions = narrowed(
        Decision.objects.exclude(verdict=Verdict.COMMENT),
        *("review", "round", "verdict", "person__name"),
    )
    reviews = reviews_visible_to(actor).filter(
        subject_type="release", subject_id__in=[str(release.pk) for release in releases]
    )
    reviews = narrowed(reviews, "subject_id", "round").prefetch_related(
        Prefetch("decisions", decisions.order_by("pk"))
    )
    newest = {review.subject_id: review for review in reviews.order_by("pk")}
    return [_reviewed(release, newest.get(str(release.pk))) for release in releases]


def _reviewed(release: Release, review: Review | None) -> Reviewed:
    if review is None:
        return Reviewed(release, None, [])
    votes = [vote for vote in review.decisions.all() if vote.round == review.round]
    return Reviewed(release, review, votes)
