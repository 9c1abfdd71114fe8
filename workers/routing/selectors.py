"""Read the targets of a deployment, with figures of their requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone

from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from governance.usage.models import ShadowTotal, UsageTotal
from governance.usage.selectors import whole_sum
from governance.usage.shadows import shadow_evidence
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import releases_visible_to
from workers.deployments.models import Deployment, TargetRole
from workers.deployments.selectors import deployments_visible_to
from workers.deployments.states import LIVE
from workers.routing.schemas import RoutingConditions

# Time whose figures are shown, and the most releases that a form offers.
SPAN = timedelta(hours=24)
OFFERED_MAX = 50
_SHADOWS_MAX = 50
_HEAVY = ("dossier", "risk_answers", "version__manifest", "version__card")


@dataclass(frozen=True, slots=True)
class TargetFigures:
    """Requests that a release answered or failed. `mean_ms` is None without any."""

    requests: int = 0
    failed: int = 0
    units: int = 0
    cost_micro: int = 0
    mean_ms: int | None = None

    @property
    def error_rate(self) -> float:
        return self.failed / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class TargetView:
    """A primary or target. `share` is its percentage of all requests; for a shadow, the percentage
    that is copied; None for fallbacks and for targets with conditions. `conditions` are phrases.
    `shadow` compares a shadow with each release whose requests it answered, newest first."""

    deployment: Deployment
    role: str
    share: int | None
    conditions: tuple[str, ...]
    figures: TargetFigures
    shadow: tuple[dict[str, Any], ...] = ()


def targets_visible_to(actor: Principal, deployment: Deployment) -> QuerySet[Deployment]:
    """Return the live targets of a primary that the actor may see, in their order."""
    rows = deployments_visible_to(actor).filter(target_of=deployment, state__in=LIVE)
    return rows.order_by("position", "pk")


def targets_view(actor: Principal, deployment: Deployment) -> list[TargetView]:
    """Return the primary and its live targets, with the figures of the last 24 hours from the usage
    that the actor may see. Two queries, with a shadow three."""
    rows = [deployment, *targets_visible_to(actor, deployment)]
    figures = _figures(actor, deployment.name, timezone.now() - SPAN)
    shadows = _shadows(actor, deployment.name, rows)
    views, left = [], 100
    for row in rows[1:]:
        conditions = tuple(RoutingConditions.model_validate(row.routing_conditions).words())
        share: int | None = row.weight
        if row.role == TargetRole.FALLBACK or (conditions and row.role != TargetRole.SHADOW):
            share = None
        elif row.role != TargetRole.SHADOW:
            share = min(row.weight, left)
            left -= share
        answered = figures.get((row.release_id, row.role == TargetRole.SHADOW), TargetFigures())
        compared = tuple(shadows.get(row.release_id, ()))
        views.append(TargetView(row, row.role, share, conditions, answered, compared))
    own = figures.get((deployment.release_id, False), TargetFigures())
    return [TargetView(deployment, "primary", left, (), own), *views]


def _figures(actor: Principal, name: str, since: datetime) -> dict[tuple[int, bool], TargetFigures]:
    """Return figures by release and by whether they are of copies for a shadow."""
    hour = since.replace(minute=0, second=0, microsecond=0)
    rows = UsageTotal.objects.filter(
        step=UsageTotal.Step.HOUR, by=UsageTotal.By.DEPLOYMENT, name=name, at__gte=hour
    )
    rows = visible_to(actor, Action.USAGE_VIEW, rows.order_by(), resource_type="usage")
    sums = rows.values("release", "jobs").annotate(
        count=whole_sum("requests"),
        lost=whole_sum("failed"),
        used=whole_sum("units"),
        cost=whole_sum("cost_micro"),
        time=whole_sum("total_ms"),
    )
    return {
        (row["release"], row["jobs"]): TargetFigures(
            requests=row["count"],
            failed=row["lost"],
            units=row["used"],
            cost_micro=row["cost"],
            mean_ms=round(row["time"] / row["count"]) if row["count"] else None,
        )
        for row in sums
    }


def _shadows(
    actor: Principal, name: str, targets: Sequence[Deployment]
) -> dict[int, list[dict[str, Any]]]:
    """Return the comparisons of each shadow's release with other releases."""
    releases = [row.release_id for row in targets if row.role == TargetRole.SHADOW]
    if not releases:
        return {}
    rows = ShadowTotal.objects.filter(deployment=name, release__in=releases).order_by("-last_at")
    rows = visible_to(actor, Action.USAGE_VIEW, rows, resource_type="usage")
    evidence: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows[:_SHADOWS_MAX]:
        evidence[row.release].append(shadow_evidence(row))
    return evidence


def releases_offered(actor: Principal, deployment: Deployment) -> list[Release]:
    """Return approved releases for the name and place of a deployment that are not deployed under
    it, newest first."""
    used = Deployment.objects.filter(Q(pk=deployment.pk) | Q(target_of=deployment), state__in=LIVE)
    rows = releases_visible_to(actor).filter(
        state=ReleaseState.APPROVED,
        deployment_name=deployment.name,
        environment=deployment.release.environment,
        department=deployment.department_id,
        version__model__task=deployment.release.version.model.task,
    )
    rows = rows.exclude(pk__in=used.order_by().values("release")).defer(*_HEAVY)
    return list(rows.order_by("-pk")[:OFFERED_MAX])
