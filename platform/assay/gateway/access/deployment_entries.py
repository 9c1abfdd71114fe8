"""Deployments in the gateway's snapshot, and the heartbeats and leases that keep them serving."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from django.conf import settings
from django.db import connection
from django.db.models import OuterRef, Prefetch, Subquery

from assay.gateway.access.prompts import NO_PROMPT, OwnPrompt, own_prompt
from assay.gateway.access.release_conditions import (
    active_conditions,
    emergency_access_notice,
    end_notice,
)
from governance.policy.decisions import Part, resource_part
from governance.policy.engine import Resource
from governance.quotas.prices import FREE, Tariff
from governance.quotas.selectors import tariff_for
from governance.quotas.wire import Limit
from governance.usage.units import Unit
from registry.catalog import TASKS
from registry.catalog.engines import KEEP_PREFIXES, EngineName
from registry.catalog.hosted import Prices
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.models import Release
from registry.releases.serving import ServingVerdict, serving_verdicts
from registry.versions.classification import classification_expression
from registry.versions.hosted import hosted_served
from registry.versions.models import ModelVersion
from workers.deployments.models import (
    Deployment,
    Replica,
    ReplicaState,
    TargetRole,
    WorkerKey,
)
from workers.deployments.resources import deployment_attributes
from workers.deployments.selectors import live_or_recalled
from workers.deployments.states import LIVE
from workers.nodes.selectors import realm_of_worker
from workers.placement.models import Placement
from workers.routing.schemas import RoutingConditions
from workers.wire import worker_address

logger = logging.getLogger(__name__)

# A replica whose heartbeat is older than this many seconds gets no requests.
REPLICA_PATIENCE_S = 30.0
# Replicas with the public key of their worker and the realm of its node. Requests are sealed with
# that key, so a worker without one gets none.
_WITH_KEYS = Replica.objects.annotate(
    public_key=Subquery(
        WorkerKey.objects.filter(worker=OuterRef("worker")).values("public_key")[:1]
    ),
    realm=realm_of_worker("worker"),
)
_REPLICAS = Prefetch("replicas", _WITH_KEYS)
_HELD = (ReplicaState.LOADING, ReplicaState.READY)
_WITH_REALMS = Placement.objects.annotate(realm=realm_of_worker("worker"))
_PLACEMENTS = Prefetch("placements", _WITH_REALMS)
_serials = itertools.count()
ANY_REQUEST = RoutingConditions()


@dataclass(slots=True)
class ReplicaEntry:
    """A worker's copy of a deployment. Requests may be sealed for its `address`, if it has one.
    `ready`: it has loaded exactly the approved bytes. `heartbeat`, in seconds since the epoch, is
    the only value that changes.
    """

    id: int
    address: str
    ready: bool
    heartbeat: float

    @property
    def until(self) -> float:
        """Time at which its last heartbeat stops counting."""
        return self.heartbeat + REPLICA_PATIENCE_S


@dataclass(slots=True, eq=False)
class DeploymentEntry:
    """One live deployment. `obstacle` is the reason why it may not serve; empty if it may.

    `expires_at` is the end of serving, and `approved_until` the end of its approval, where its
    grace begins; these, `created_at` and `ready_until` are seconds since the epoch. `leased_until`
    is the end of the controller's lease, on the monotonic clock. `ready_until` is the time at which
    the newest heartbeat of a replica that has loaded exactly `digest` stops counting. Readings of
    leases and heartbeats set both; nothing else of an entry changes.

    `only` are the departments that the conditions of its release permit, empty for all, and
    `limits_of` their limits by department. `notice` are headers that announce from `notice_from` on
    that the approval ends soon.
    `emergency_access`: it serves under emergency access, before its review has decided.
    `realms` are those of all workers that may read its queue, including silent ones.
    `provider_tariff`: the prices in the description of a hosted version.
    `keeps_prefixes`: its engine caches prompts. Requests are metered in `unit`. `own_prompt` is the
    prompt that the version adds to each request.
    `stream_total_s` and `stream_idle_s` limit a streamed answer, in all and between two tokens.
    `queue_weights` are those of departments in its queue; 1 by default.
    `may_sleep`: it may be scaled to zero; `load_s` is its longest load, in seconds. `judged_at`
    is when the one rule was applied, on the monotonic clock.
    `role`, `weight`, `position` and `conditions` are those of a target; a primary's are empty.
    `target_of` is its primary.
    `serial` differs for each entry, so that decisions about it can be cached.
    """

    id: int
    name: str
    department: str
    release: int
    digest: str
    task: str
    expires_at: float
    created_at: float
    ready_until: float
    leased_until: float
    obstacle: str
    resource: Resource
    limits: tuple[Limit, ...] = ()
    tariff: Tariff = FREE
    provider_tariff: Tariff | None = None
    approved_until: float = 0.0
    only: frozenset[str] = frozenset()
    limits_of: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    notice_headers: tuple[tuple[bytes, bytes], ...] = ()
    notice_from: float = 0.0
    emergency_access: bool = False
    replicas: tuple[ReplicaEntry, ...] = ()
    keeps_prefixes: bool = False
    realms: frozenset[str] = frozenset()
    unit: Unit = Unit.TOKENS
    own_prompt: OwnPrompt = NO_PROMPT
    stream_total_s: float = 0.0
    stream_idle_s: float = 0.0
    queue_weights: Mapping[str, int] = field(default_factory=dict)
    may_sleep: bool = False
    load_s: float = 0.0
    judged_at: float = 0.0
    target_of: int | None = None
    role: TargetRole = TargetRole.PRIMARY
    weight: int = 0
    position: int = 0
    conditions: RoutingConditions = ANY_REQUEST
    serial: int = field(default_factory=_serials.__next__, init=False, repr=False)
    _recorded: list[Part] = field(default_factory=list, init=False, repr=False)

    @property
    def recorded(self) -> Part:
        """The resource in the form that decision records use, computed once."""
        if not self._recorded:
            self._recorded.append(resource_part(self.resource))
        return self._recorded[0]

    @property
    def notice(self) -> tuple[tuple[bytes, bytes], ...]:
        """Headers that announce the end of the approval, if it is near."""
        return self.notice_headers if time.time() >= self.notice_from else ()

    @property
    def workers(self) -> tuple[str, ...]:
        """Addresses of workers that a request may reach. They include workers that are loading,
        since these may read the queue before the next reading, but not silent ones, nor those whose
        heartbeats stopped because the deployment moved away.
        """
        return self._reachable(self.replicas)

    @property
    def ready_workers(self) -> tuple[str, ...]:
        """Those of `workers` that have loaded it."""
        return self._reachable(each for each in self.replicas if each.ready)

    def _reachable(self, replicas: Iterable[ReplicaEntry]) -> tuple[str, ...]:
        now = time.time()
        return tuple(sorted(each.address for each in replicas if each.address and each.until > now))

    def limits_for(self, department: str | None) -> tuple[Limit, ...]:
        """Return the deployment's limits for a request of `department`."""
        return self.limits + self.limits_of.get(department or "", ())


@dataclass(frozen=True, slots=True)
class Read:
    """Result of reading some deployments. `live` are their entries, and `recalled` the reasons of
    those that a recall stopped recently, both by ID. The others do not exist any more."""

    live: dict[int, DeploymentEntry]
    recalled: dict[int, str]


def deployment_ids(since: datetime) -> list[int]:
    """Return the IDs of live deployments and of those that were recalled after `since`."""
    return list(live_or_recalled(since).order_by("pk").values_list("pk", flat=True))


def read_deployments(
    ids: Collection[int],
    since: datetime,
    limits: Mapping[str, tuple[Limit, ...]],
    prices: dict[str, Tariff],
) -> Read:
    """Read these deployments, in a fixed number of queries."""
    # Before the query, so that no lease seems to end later than it does.
    now = time.monotonic()
    rows = live_or_recalled(since).filter(pk__in=ids)
    rows = rows.prefetch_related("release__departments", _REPLICAS, _PLACEMENTS)
    deployments = list(
        rows.annotate(classification=classification_expression("release__version__"))
    )
    verdicts = serving_verdicts([row.release for row in deployments])
    read = Read({}, {})
    for row in deployments:
        verdict = verdicts[row.release_id]
        if row.state not in LIVE:
            read.recalled[row.pk] = _obstacle(verdict)
            continue
        try:
            read.live[row.pk] = _deployment_entry(
                row,
                verdict,
                now + (row.lease_s or 0.0),  # type: ignore[attr-defined]  # annotated
                limits.get(f"deployment:{row.name}", ()),
                prices,
            )
        except Exception:
            # Leave this one out, so that it does not serve; the others are unaffected.
            logger.exception("Deployment %s cannot be read; it does not serve", row.name)
    return read


def read_places(entries: Collection[DeploymentEntry]) -> list[DeploymentEntry]:
    """Return these entries with their present replicas and placements, in two queries."""
    replicas: dict[int, list[Replica]] = {entry.id: [] for entry in entries}
    placements: dict[int, list[Placement]] = {entry.id: [] for entry in entries}
    for placement in _WITH_REALMS.filter(deployment__in=list(placements)):
        placements[placement.deployment_id].append(placement)
    for replica in _WITH_KEYS.filter(deployment__in=list(replicas)):
        replicas[replica.deployment_id].append(replica)
    return [_placed(entry, replicas[entry.id], placements[entry.id]) for entry in entries]


# Columns of the readings that come every few seconds: no ORM, since there is a row for each
# deployment.
_LEASES = """
SELECT l.deployment_id, extract(epoch FROM l.servable_until - clock_timestamp())::float8
  FROM workers_servinglease l JOIN workers_deployment d ON d.id = l.deployment_id
 WHERE d.state = ANY (%s)
"""
_HEARTBEATS = """
SELECT id, extract(epoch FROM heartbeat_at)::float8 FROM workers_replica WHERE state = ANY (%s)
"""


def read_liveness(entries: Iterable[DeploymentEntry], known: Collection[int]) -> set[int]:
    """Set the leases and heartbeats of all entries, in two queries. `known` are their IDs. Return
    the IDs of deployments that are live although no entry says so, or the reverse.

    Raises:
        django.db.Error: PostgreSQL does not answer.
    """
    # Before the query, so that no lease seems to end later than it does.
    now = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(_LEASES, [list(LIVE)])
        leases = dict(cursor.fetchall())
        cursor.execute(_HEARTBEATS, [list(_HELD)])
        heartbeats = dict(cursor.fetchall())
    for entry in entries:
        entry.leased_until = now + leases.get(entry.id, 0.0)
        ready_until = 0.0
        for replica in entry.replicas:
            replica.heartbeat = heartbeats.get(replica.id, 0.0)
            if replica.ready and replica.until > ready_until:
                ready_until = replica.until
        entry.ready_until = ready_until
    return leases.keys() ^ set(known)


def _deployment_entry(
    row: Deployment,
    verdict: ServingVerdict,
    leased_until: float,
    limits: tuple[Limit, ...],
    prices: dict[str, Tariff],
) -> DeploymentEntry:
    release, version = row.release, row.release.version
    departments = sorted(department.slug for department in release.departments.all())
    attributes = deployment_attributes(
        release,
        name=row.name,
        departments=departments,
        classification=row.classification,  # type: ignore[attr-defined]  # annotated above
    )
    department_names = ", ".join(departments) or "no department"
    attributes["denial_hint"] = f"its release {release.pk} names {department_names}"
    conditions = active_conditions(release)
    end, emergency = verdict.until, verdict.emergency
    notice, notice_from = (
        end_notice(release) if emergency is None else (emergency_access_notice(emergency), 0.0)
    )
    provider = provider_tariff(version) if release.engine == EngineName.HOSTED else None
    entry = DeploymentEntry(
        id=row.pk,
        name=row.name,
        department=row.department.slug,
        release=release.pk,
        digest=version.digest,
        task=version.model.task,
        expires_at=0.0 if end is None else end.timestamp(),
        created_at=row.created_at.timestamp(),
        ready_until=0.0,
        leased_until=leased_until,
        obstacle=_obstacle(verdict) or conditions.obstacle or _shadow_obstacle(row),
        resource=Resource(
            type="deployment",
            id=str(row.pk),
            name=row.name,
            department=row.department.slug,
            attributes=attributes,
        ),
        limits=limits + conditions.limits,
        tariff=tariff_for(row.name, prices, provider),
        provider_tariff=provider,
        approved_until=_approved_until(release, emergency),
        only=conditions.only,
        limits_of=conditions.limits_of,
        notice_headers=notice,
        notice_from=notice_from,
        emergency_access=emergency is not None,
        keeps_prefixes=release.engine in KEEP_PREFIXES,
        unit=task_unit(version.model.task),
        own_prompt=own_prompt(version),
        stream_total_s=row.stream_total_s or settings.GATEWAY_REQUEST_TIMEOUT_S,
        stream_idle_s=row.stream_idle_s or settings.GATEWAY_REQUEST_TIMEOUT_S,
        queue_weights=row.queue_weights,
        may_sleep=row.replicas_min == 0,
        judged_at=time.monotonic(),
        target_of=row.target_of_id,
        role=TargetRole(row.role),
        weight=row.weight,
        position=row.position,
        conditions=RoutingConditions.model_validate(row.routing_conditions),
    )
    return _placed(entry, list(row.replicas.all()), list(row.placements.all()))


def _placed(
    entry: DeploymentEntry, replicas: list[Replica], placements: list[Placement]
) -> DeploymentEntry:
    entries = tuple(_replica_entry(replica, entry.digest) for replica in replicas)
    return replace(
        entry,
        replicas=entries,
        ready_until=max((each.until for each in entries if each.ready), default=0.0),
        realms=frozenset(_reading(replicas, placements)),
        load_s=max((replica.load_seconds or 0.0 for replica in replicas), default=0.0),
    )


def _replica_entry(replica: Replica, digest: str) -> ReplicaEntry:
    key, realm = replica.public_key, replica.realm  # type: ignore[attr-defined]  # annotated above
    ready = bool(key) and replica.state == ReplicaState.READY and replica.loaded_digest == digest
    loading = bool(key) and replica.state == ReplicaState.LOADING
    on_node = "/" in replica.worker
    reachable = (ready or loading) and (realm or not on_node)
    return ReplicaEntry(
        id=replica.pk,
        address=worker_address(realm if on_node else "", key) if reachable else "",
        ready=ready,
        heartbeat=replica.heartbeat_at.timestamp(),
    )


def _reading(replicas: list[Replica], placements: list[Placement]) -> Iterator[str]:
    """Yield realms of workers that may read the queue. They return messages not sealed for them."""
    places: list[Replica | Placement] = list(placements)
    places += [replica for replica in replicas if replica.state in _HELD]
    for place in places:
        if "/" not in place.worker:
            yield ""
        elif place.realm:  # type: ignore[union-attr]  # annotated above
            yield place.realm  # type: ignore[union-attr]


def task_unit(task: str) -> Unit:
    """Return the unit in which requests for a task are metered; tokens for an unknown task."""
    declaration = TASKS.get(task)
    return Unit.TOKENS if declaration is None else declaration.unit


def provider_tariff(version: ModelVersion) -> Tariff | None:
    """Return the prices that the description of a hosted version states; None if it states none."""
    hosted = hosted_served(version)
    if hosted is None or hosted.prices == Prices():
        return None
    prices = hosted.prices
    units = {hosted.rules.unit.value: prices.unit} if prices.unit else {}
    return Tariff(prices.prompt, prices.completion, units=units)


def _approved_until(release: Release, emergency: EmergencyAccess | None) -> float:
    end = release.expires_at if emergency is None else emergency.ends_at
    return 0.0 if end is None else end.timestamp()


def _shadow_obstacle(row: Deployment) -> str:
    """Return the obstacle of a deployment whose release is limited to shadows, or the reverse."""
    is_limited = bool(row.release.conditions.get("shadow_only"))
    if is_limited == (row.role == TargetRole.SHADOW):
        return ""
    return f"Release {row.release_id} was {'' if is_limited else 'not '}approved only as a shadow."


def _obstacle(verdict: ServingVerdict) -> str:
    return "" if verdict.refusal is None else verdict.refusal.message
