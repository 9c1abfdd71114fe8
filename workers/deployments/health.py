"""Health of a deployment: performance over time, changes in that time, and the current queue."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import NotPermitted
from governance.permissions import Action
from governance.policy.models import PolicyState
from governance.policy.selectors import policy_versions_visible_to, visible_to
from governance.principals import Principal
from governance.usage.performance import Performance, Phases, Span, Window, performance
from governance.usage.selectors import may_view_usage
from registry.catalog.engines import EngineName
from registry.sandbox.places import FairPlaces
from workers.deployments.models import REPLACED, Deployment, DeploymentState, ServingPeriod
from workers.deployments.selectors import HEAVY, deployment_get
from workers.deployments.stated_models import stated_by
from workers.dispatch import queued_requests
from workers.nodes.fleet import SILENCE
from workers.nodes.models import Node
from workers.nodes.selectors import nodes_visible_to
from workers.placement.selectors import Place, places_of

CHANGES_MAX = 100
# A phase explains the slowest answers if it takes at least this share of their time.
EXPLAINS = 0.4
# Figures of a busy deployment take seconds. At most half of the web threads read them; one person
# leaves a place to others. Further requests wait only for quick reads.
_places = FairPlaces(
    max(1, settings.WEB_THREADS // 2),
    wait_s=1.0,
    waiting=(256, 256),
    refusal="Too many people are reading figures of busy deployments; try again in a few seconds.",
)
_ENDS: dict[str, str] = {
    DeploymentState.PENDING: "Lost its last worker",
    DeploymentState.REFUSED: "A worker refused its bytes",
}
_ADVICE = {
    "load": "Slow requests wait {} of their time for the model to load, because it is scaled to "
    "zero when idle. Keep at least one replica.",
    "queue": "Slow requests wait {} of their time in the queue. Add replicas, or raise their "
    "maximum.",
    "prefill": "Slow requests spend {} of their time before the first token. Shorten prompts, or "
    "use a faster device.",
    "stream": "Slow requests spend {} of their time on generating. Limit the length of answers, or "
    "use a faster device.",
    "compute": "Slow requests spend {} of their time on computing. Send smaller inputs, or use a "
    "faster device.",
}


@dataclass(frozen=True, slots=True)
class Change:
    """Change that may explain the figures. `kind` is release, replicas, state, policy or provider;
    `reference` is the number of the release, deployment or policy."""

    at: datetime
    kind: str
    text: str
    reference: int


@dataclass(frozen=True, slots=True)
class Copy:
    """A worker of the deployment. `node` is its machine, None if the actor may not see it or the
    worker runs next to the control plane."""

    place: Place
    node: Node | None

    @property
    def is_silent(self) -> bool:
        """Return whether the node has stopped reporting."""
        seen_at = None if self.node is None else self.node.seen_at
        return seen_at is not None and timezone.now() - seen_at > SILENCE


@dataclass(frozen=True, slots=True)
class Load:
    """Current state. `waiting` is the number of queued requests; None without a broker."""

    deployment: Deployment
    waiting: int | None
    copies: list[Copy]


@dataclass(frozen=True, slots=True)
class Health:
    """Performance of all releases under the deployment's name, and changes, newest first."""

    deployment: Deployment
    span: Span
    performance: Performance
    changes: list[Change]
    load: Load

    @property
    def explanation(self) -> str:
        """Sentence about the phase that makes answers slow; empty if none does."""
        return explanation(self.performance.slowest)


def explanation(phases: Phases) -> str:
    """Return the advice for the longest phase; empty if it explains too little."""
    if not phases.requests or not phases.total:
        return ""
    name, share = max(phases.shares.items(), key=lambda item: item[1])
    return _ADVICE[name].format(f"{100 * share:.0f}%") if share >= EXPLAINS else ""


def health_viewed(*, actor: Principal, deployment_id: int) -> Deployment:
    """Return a deployment whose health the actor may view: all requests whose usage they may view.

    Raises:
        NotFound: the deployment does not exist, or the actor may not see it.
        NotPermitted: the actor may not view any usage.
    """
    deployment = deployment_get(actor=actor, deployment_id=deployment_id)
    if not may_view_usage(actor):
        raise NotPermitted(
            f"You may not view usage, so you may not view the health of {deployment.name}.",
            hint="Ask the lead of your department for a role in it.",
        )
    return deployment


def deployment_health(*, actor: Principal, deployment_id: int, span: Span = Span.DAY) -> Health:
    """Return the health of a deployment.

    Raises:
        NotFound, NotPermitted: as `health_viewed`.
        Unavailable: as `performance`, or too many people read figures at once.
    """
    deployment = health_viewed(actor=actor, deployment_id=deployment_id)
    window = Window.of(span)
    with _places.place(actor.id):
        figures = performance(actor, deployment.name, window)
    return Health(
        deployment=deployment,
        span=span,
        performance=figures,
        changes=changes_within(actor, deployment, window),
        load=deployment_load(actor, deployment),
    )


def deployment_load(actor: Principal, deployment: Deployment) -> Load:
    """Return the queue and the workers, with one query and one round trip to the broker."""
    queued = queued_requests([deployment.pk])
    places = places_of(deployment)
    names = {place.worker.partition("/")[0] for place in places if "/" in place.worker}
    nodes = {node.name: node for node in nodes_visible_to(actor).filter(name__in=names)}
    return Load(
        deployment=deployment,
        waiting=None if queued is None else queued[deployment.pk],
        copies=[Copy(place, nodes.get(place.worker.partition("/")[0])) for place in places],
    )


def changes_within(actor: Principal, deployment: Deployment, window: Window) -> list[Change]:
    """Return the newest changes of a window, newest first, with five queries."""
    during = Q(stopped_at__gte=window.since) | Q(stopped_at__isnull=True)
    named = Deployment.objects.filter(
        during, name=deployment.name, department=deployment.department_id
    )
    visible = visible_to(actor, Action.DEPLOYMENT_VIEW, named, resource_type="deployment")
    rows = list(
        visible.select_related("release__version__model")
        .defer(*(name for name in HEAVY if "base" not in name))
        .order_by("-pk")[:CHANGES_MAX]
    )
    changes = [
        *_releases(rows),
        *_serving(rows, window),
        *_replicas(rows, window),
        *_policies(actor, window),
        *_provider(rows),
    ]
    changes = [change for change in changes if window.since <= change.at < window.until]
    return sorted(changes, key=lambda change: change.at, reverse=True)[:CHANGES_MAX]


def _releases(rows: list[Deployment]) -> list[Change]:
    changes = []
    for row in rows:
        release = row.release
        text = f"Release {release.pk} deployed: {release.version}"
        changes.append(Change(row.created_at, "release", text, release.pk))
        if row.stopped_at is not None and not row.message.startswith(REPLACED):
            changes.append(Change(row.stopped_at, "state", f"Stopped: {row.message}", row.pk))
    return changes


def _serving(rows: list[Deployment], window: Window) -> list[Change]:
    """Return the ends of serving periods, and the beginnings of further ones."""
    periods = ServingPeriod.objects.filter(deployment__in=rows).filter(
        Q(serving_until__gte=window.since) | Q(serving_until__isnull=True)
    )
    changes, lost = [], set()
    columns = ("deployment_id", "serving_from", "serving_until", "ended_as")
    for pk, since, until, ended in periods.order_by("pk")[:CHANGES_MAX].values_list(*columns):
        if pk in lost:
            changes.append(Change(since, "state", "A worker has loaded it again", pk))
        lost.discard(pk)
        if ended in _ENDS and until is not None:
            changes.append(Change(until, "state", _ENDS[ended], pk))
            lost.add(pk)
    return changes


def _replicas(rows: list[Deployment], window: Window) -> list[Change]:
    events = AuditEvent.objects.filter(
        subject_type="deployment",
        subject_id__in=[str(row.pk) for row in rows],
        action=Action.DEPLOYMENT_PLACE,
        outcome="allowed",
        occurred_at__gte=window.since,
    ).order_by("-id")
    changes = []
    for at, pk, canonical in events.values_list("occurred_at", "subject_id", "canonical")[
        :CHANGES_MAX
    ]:
        data = json.loads(bytes(canonical))["data"]
        text = _placing(data["before"], data["after"])
        changes.append(Change(at, "replicas", text, int(pk)))
    return changes


def _placing(before: dict[str, int], after: dict[str, int]) -> str:
    # Events of earlier versions have no target.
    ages = before.get("queue_age_s"), after.get("queue_age_s")
    if _range(before) == _range(after) and ages[0] != ages[1]:
        return f"Target wait: {ages[0]} s → {ages[1]} s"
    return f"Replicas: {_range(before)} → {_range(after)}"


def _provider(rows: list[Deployment]) -> list[Change]:
    """Return the first answers with each model and fingerprint."""
    return [
        Change(
            each.first_at,
            "provider",
            f"{'Refused answers' if each.differs else 'First answer'} of {each}",
            each.deployment_id,
        )
        for each in stated_by([row for row in rows if row.release.engine == EngineName.HOSTED])
    ]


def _range(settings: dict[str, int]) -> str:
    least, most = settings["replicas_min"], settings["replicas_max"]
    return str(least) if least == most else f"{least} to {most}"


def _policies(actor: Principal, window: Window) -> list[Change]:
    in_force = policy_versions_visible_to(actor).filter(
        state__in=(PolicyState.ACTIVE, PolicyState.SUPERSEDED), decided_at__gte=window.since
    )
    rows = in_force.order_by("-number").values_list("number", "decided_at")[:CHANGES_MAX]
    return [
        Change(decided_at, "policy", f"Policy {number} in force", number)
        for number, decided_at in rows
        if decided_at is not None
    ]
