"""Compare a release with the live deployment of its name; list the affected departments."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Max, QuerySet

from governance.permissions import Action
from governance.policy.context import probing_context
from governance.policy.engine import decide
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.rowsecurity import lifted
from governance.usage.models import UsageTotal
from governance.usage.selectors import beginning_of, usage_totals_visible_to, whole_sum
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
    """One department: whether it may use the release, whether it may use the live one, and its
    requests to that name in the last 30 days (None: none)."""

    department: str
    may_use: bool
    may_now: bool
    traffic: Traffic | None


@dataclass(frozen=True, slots=True)
class Reach:
    """Departments that a release affects, most requests first.

    `whole` is true if the requests of all departments are counted; readers who may not decide on
    the release get only the usage that they see elsewhere. `busiest` is the largest number of
    requests of one department, `left_out` the number of omitted departments.
    """

    departments: list[Reached]
    whole: bool
    requests: int
    tokens: int
    busiest: int
    left_out: int


@dataclass(frozen=True, slots=True)
class LiveComparison:
    """Comparison of a release with the live deployment of its name, if the reader may see it."""

    live: Deployment | None
    comparison: Comparison
    reach: Reach


def live_deployment(actor: Principal, release: Release) -> Deployment | None:
    """Return the live deployment of the release's name, unless it is of this release.

    Return None if the actor may see the deployment but not its release.
    """
    visible = releases_visible_to(actor).order_by().values("pk")
    return (
        deployments_visible_to(actor)
        .select_related(None)
        .select_related("release__version__model")
        .prefetch_related(None)
        .prefetch_related("release__departments")
        .filter(name=release.deployment_name, state__in=LIVE, target_of=None, release__in=visible)
        .exclude(release_id=release.pk)
        .first()
    )


def release_compare_live(*, actor: Principal, release: Release) -> LiveComparison:
    """Compare a release with the live one, if the actor may see that."""
    live = live_deployment(actor, release)
    compared = live.release if live is not None else None
    return LiveComparison(
        live=live,
        comparison=release_compare(actor=actor, release=release, live=compared),
        reach=release_reach(actor=actor, release=release, live=compared),
    )


def release_reach(*, actor: Principal, release: Release, live: Release | None) -> Reach:
    """Return the departments that may use a release, and their recent requests to its name.

    Anyone who may decide on the release sees the requests of all departments, even without access
    to other usage: they show whom the decision affects.
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
            traffic = _traffic(
                UsageTotal.objects.filter(
                    step=UsageTotal.Step.DAY,
                    by=UsageTotal.By.DEPLOYMENT,
                    at__gte=beginning_of(TRAFFIC_DAYS),
                ),
                release.deployment_name,
            )
    else:
        visible = usage_totals_visible_to(actor, UsageTotal.By.DEPLOYMENT, days=TRAFFIC_DAYS)
        traffic = _traffic(visible, release.deployment_name)
    by_name = {each.department: each for each in traffic}
    may_use = {each.slug for each in release.departments.all()}
    may_now = {each.slug for each in live.departments.all()} if live is not None else set()
    departments = [
        Reached(name, name in may_use, name in may_now, by_name.get(name))
        for name in sorted(may_use | may_now | set(by_name))
    ]
    departments.sort(key=lambda each: -(each.traffic.requests if each.traffic else 0))
    return Reach(
        departments=departments[:DEPARTMENTS_SHOWN],
        whole=whole,
        requests=sum(each.requests for each in traffic),
        tokens=sum(each.tokens for each in traffic),
        busiest=max((each.requests for each in traffic), default=0),
        left_out=max(0, len(departments) - DEPARTMENTS_SHOWN),
    )


def _traffic(totals: QuerySet[UsageTotal], name: str) -> list[Traffic]:
    rows = (
        totals.filter(name=name)
        .order_by()
        .values("department")
        .annotate(
            count=whole_sum("requests"),
            tokens=whole_sum("prompt_tokens") + whole_sum("completion_tokens"),
            last=Max("last_at"),
        )
    )
    return [Traffic(row["department"], row["count"], row["tokens"], row["last"]) for row in rows]
