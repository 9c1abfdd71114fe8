"""Comparison of a release with what serves under its name now, and the affected departments."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Max, QuerySet, Sum

from governance.permissions import Action
from governance.policy.context import probing_context
from governance.policy.engine import decide
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.rowsecurity import lifted
from governance.usage.models import UsageRecord
from governance.usage.selectors import beginning_of, usage_visible_to
from registry.releases.comparison.build import Comparison, release_compare
from registry.releases.models import Release
from registry.releases.selectors import releases_visible_to
from registry.resources import release_resource
from workers.deployments.models import Deployment
from workers.deployments.radius import TRAFFIC_DAYS, Traffic
from workers.deployments.selectors import deployments_visible_to
from workers.deployments.states import LIVE

DEPARTMENTS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Reached:
    """One department: whether it may use the release, whether it may use the live one, and what it
    asked of that name in the last 30 days (None: nothing)."""

    department: str
    may_use: bool
    may_now: bool
    traffic: Traffic | None


@dataclass(frozen=True, slots=True)
class Reach:
    """Departments that a release reaches, those with most requests first. `whole` is true when
    every department's requests are counted; readers who may not decide get only those they see
    elsewhere. `busiest` is the most requests of one department, `left_out` the number of
    departments that did not fit.
    """

    departments: list[Reached]
    whole: bool
    requests: int
    tokens: int
    busiest: int
    left_out: int


@dataclass(frozen=True, slots=True)
class LiveComparison:
    """A release compared with the live deployment of its name, if the reader may see one."""

    live: Deployment | None
    comparison: Comparison
    reach: Reach


def live_deployment(actor: Principal, release: Release) -> Deployment | None:
    """Return the deployment that serves under the release's name now, unless it is this release's.
    The right to know of a deployment is not the right to read its release: such people get None.
    """
    shown = releases_visible_to(actor).order_by().values("pk")
    return (
        deployments_visible_to(actor)
        .filter(name=release.deployment_name, state__in=LIVE, release__in=shown)
        .exclude(release_id=release.pk)
        .first()
    )


def release_compare_live(*, actor: Principal, release: Release) -> LiveComparison:
    """Compare with the live release, as far as the actor may see it."""
    live = live_deployment(actor, release)
    compared = live.release if live is not None else None
    return LiveComparison(
        live=live,
        comparison=release_compare(actor=actor, release=release, live=compared),
        reach=release_reach(actor=actor, release=release, live=compared),
    )


def release_reach(*, actor: Principal, release: Release, live: Release | None) -> Reach:
    """Which departments may use a release, and what they asked of its name in the last 30 days.

    Who may decide on it sees every department's requests, though they see no other usage: it says
    whom the decision strikes.
    """
    whole = decide(
        active_policy(),
        actor,
        Action.RELEASE_DECIDE,
        release_resource(release),
        probing_context(Action.RELEASE_DECIDE),
    ).allowed
    if whole:
        with lifted():
            traffic = _traffic(UsageRecord.objects.all(), release.deployment_name)
    else:
        traffic = _traffic(usage_visible_to(actor), release.deployment_name)
    by_name = {each.department: each for each in traffic}
    may_use = {each.slug for each in release.departments.all()}
    may_now = {each.slug for each in live.departments.all()} if live is not None else set()
    found = [
        Reached(name, name in may_use, name in may_now, by_name.get(name))
        for name in sorted(may_use | may_now | set(by_name))
    ]
    found.sort(key=lambda each: -(each.traffic.requests if each.traffic else 0))
    return Reach(
        departments=found[:DEPARTMENTS_SHOWN],
        whole=whole,
        requests=sum(each.requests for each in traffic),
        tokens=sum(each.tokens for each in traffic),
        busiest=max((each.requests for each in traffic), default=0),
        left_out=max(0, len(found) - DEPARTMENTS_SHOWN),
    )


def _traffic(records: QuerySet[UsageRecord], name: str) -> list[Traffic]:
    rows = (
        records.filter(deployment=name, occurred_at__gte=beginning_of(TRAFFIC_DAYS))
        .order_by()
        .values("department")
        .annotate(
            requests=Count("id"),
            tokens=Sum("prompt_tokens") + Sum("completion_tokens"),
            last_at=Max("occurred_at"),
        )
    )
    return [
        Traffic(row["department"], row["requests"], row["tokens"], row["last_at"]) for row in rows
    ]
