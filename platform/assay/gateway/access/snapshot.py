"""Snapshot of keys, policy, quotas and deployments: immutable and in memory.

A snapshot contains facts, and caches decisions that depend on nothing else; expiries are compared
with the clock at every request. It is read again within milliseconds of a message on
`SNAPSHOT_CHANNEL`, and at least every `GATEWAY_SNAPSHOT_TTL_S` seconds; a snapshot older than three
times that is not used. After a notice that names a key, or a request with an unknown key, only that
key is read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import close_old_connections, connection
from django.db.models import OuterRef, Prefetch, Subquery
from django.utils import timezone

from assay.gateway.access.key_entries import KeyEntry, key_entries
from assay.gateway.access.knowledge_entries import (
    KnowledgeEntry,
    read_knowledge,
    read_recalled_documents,
)
from assay.gateway.access.prompts import NO_PROMPT, OwnPrompt, own_prompt
from assay.gateway.access.release_conditions import (
    active_conditions,
    emergency_access_notice,
    end_notice,
)
from governance.permissions import Action
from governance.policy.decisions import Part, resource_part
from governance.policy.engine import PolicyDecision, PolicySnapshot, Resource, decide
from governance.policy.services import active_policy
from governance.quotas.prices import FREE, Tariff
from governance.quotas.selectors import quota_limits, tariff_for, tariffs
from governance.quotas.wire import Limit
from governance.usage.units import Unit
from registry.catalog import TASKS
from registry.catalog.engines import KEEP_PREFIXES
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.models import Release
from registry.releases.serving import ServingVerdict, serving_verdicts
from registry.versions.classification import classification_expression
from workers.deployments.models import Deployment, Replica, ReplicaState, WorkerKey
from workers.deployments.resources import deployment_attributes
from workers.deployments.selectors import live_or_recalled
from workers.deployments.states import LIVE
from workers.nodes.selectors import realm_of_worker
from workers.placement.models import Placement
from workers.wire import worker_address

logger = logging.getLogger(__name__)

# Period after a recall in which requests that still run on the deployment are found and ended.
_RECALL_REMEMBERED = timedelta(hours=1)
# Decisions that one snapshot caches; the full cache is cleared.
DECISIONS_MAX = 4096
# A replica whose heartbeat is older than this many seconds gets no requests.
REPLICA_PATIENCE_S = 30.0
# Replicas with the public key of their worker and the realm of its node. Requests are sealed with
# that key, so a worker without one gets none.
_REPLICAS = Prefetch(
    "replicas",
    Replica.objects.annotate(
        public_key=Subquery(
            WorkerKey.objects.filter(worker=OuterRef("worker")).values("public_key")[:1]
        ),
        realm=realm_of_worker("worker"),
    ),
)
_HELD = (ReplicaState.LOADING, ReplicaState.READY)
_PLACEMENTS = Prefetch("placements", Placement.objects.annotate(realm=realm_of_worker("worker")))


@dataclass(frozen=True, slots=True)
class DeploymentEntry:
    """One live deployment. `obstacle` is the reason why it may not serve; empty if it may.

    `expires_at` is the end of serving, and `approved_until` the end of its approval, where its
    grace begins; these, `created_at` and `ready_until` are seconds since the epoch. `leased_until`
    is the end of the controller's lease, on the monotonic clock. `ready_until` is the time at which
    the newest heartbeat of a replica that has loaded exactly `digest` stops counting. `only` are
    the departments that the conditions of its release permit, empty for all, and `limits_of` their
    limits by department. `notice` are headers that announce that the approval ends soon.
    `emergency_access`: it serves under emergency access, before its review has decided.
    `workers` are the addresses of worker processes that have loaded it or are loading it,
    `ready_workers` of those that have; `realms` are those of all workers that may read its queue,
    including silent ones. `keeps_prefixes`: its engine caches prompts. Requests are metered in
    `unit`. `own_prompt` is the prompt that the version adds to each request.
    `may_sleep`: it may be scaled to zero; `load_s` is its longest load, in seconds.
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
    approved_until: float = 0.0
    only: frozenset[str] = frozenset()
    limits_of: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    notice: tuple[tuple[bytes, bytes], ...] = ()
    emergency_access: bool = False
    workers: tuple[str, ...] = ()
    ready_workers: tuple[str, ...] = ()
    keeps_prefixes: bool = False
    realms: frozenset[str] = frozenset()
    unit: Unit = Unit.TOKENS
    own_prompt: OwnPrompt = NO_PROMPT
    may_sleep: bool = False
    load_s: float = 0.0
    _recorded: list[Part] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def recorded(self) -> Part:
        """The resource in the form that decision records use, computed once."""
        if not self._recorded:
            self._recorded.append(resource_part(self.resource))
        return self._recorded[0]

    def limits_for(self, department: str | None) -> tuple[Limit, ...]:
        """Return the deployment's limits for a request of `department`."""
        return self.limits + self.limits_of.get(department or "", ())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One reading of the database. `read_at` is on the monotonic clock.

    `recalled` maps the IDs of deployments that a recall stopped recently to the reason;
    `recalled_documents` maps the IDs of recalled document versions to their names. Requests that
    still use any of them are ended.
    """

    keys: Mapping[str, KeyEntry]
    deployments: Mapping[str, DeploymentEntry]
    policy: PolicySnapshot
    read_at: float
    limits: tuple[Limit, ...] = ()
    recalled: Mapping[int, str] = field(default_factory=dict)
    knowledge: Mapping[str, KnowledgeEntry] = field(default_factory=dict)
    recalled_documents: Mapping[int, str] = field(default_factory=dict)
    _decisions: dict[tuple[Any, ...], PolicyDecision] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def decide(
        self, key: KeyEntry, entry: DeploymentEntry, context: Mapping[str, Any]
    ) -> PolicyDecision:
        """Decide whether `key` may invoke `entry`.

        Decisions about rows of this snapshot are cached by the context attributes that rules read.
        Every change of a key, policy or release creates a snapshot with an empty cache. A request
        may still have a key of an earlier snapshot; that decision is not cached.
        """
        action = Action.DEPLOYMENT_INVOKE
        mine = self.keys.get(key.public_id) is key and self.deployments.get(entry.name) is entry
        if not mine:
            return decide(self.policy, key.principal, action, entry.resource, context)
        names = self.policy.index(action, entry.resource.type).context_names
        cache_key = (key.public_id, entry.name, *[context.get(name) for name in names])
        decision = self._decisions.get(cache_key)
        if decision is None:
            if len(self._decisions) >= DECISIONS_MAX:
                self._decisions.clear()
            decision = decide(self.policy, key.principal, action, entry.resource, context)
            self._decisions[cache_key] = decision
        return decision

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.read_at

    @property
    def usable(self) -> bool:
        """True while the snapshot is recent enough to decide by."""
        return self.age_s <= 3 * settings.GATEWAY_SNAPSHOT_TTL_S


def read_snapshot() -> Snapshot:
    """Read everything, in a fixed number of queries. Blocks: call it in a thread.

    Raises:
        django.db.Error: PostgreSQL does not answer.
    """
    read_at = time.monotonic()
    close_old_connections()
    try:
        limits = _read_limits()
        policy, keys = _read_policy(), key_entries(limits)
        deployments, recalled = _read_deployments(limits)
        return Snapshot(
            policy=policy,
            keys=keys,
            deployments=deployments,
            recalled=recalled,
            knowledge=read_knowledge(),
            recalled_documents=read_recalled_documents(timezone.now() - _RECALL_REMEMBERED),
            limits=tuple(limit for subject_limits in limits.values() for limit in subject_limits),
            read_at=read_at,
        )
    except BaseException:
        connection.close()
        raise


def _read_policy() -> PolicySnapshot:
    """Return the policy. Its rules are indexed in this thread rather than by the first request."""
    policy = active_policy()
    for action in (Action.DEPLOYMENT_INVOKE, Action.DEPLOYMENT_VIEW):
        policy.index(action, "deployment")
    return policy


def read_keys(public_ids: Collection[str]) -> dict[str, KeyEntry]:
    """Read the credentials of these public IDs in two queries, omitting unknown ones. Blocks.

    Raises:
        django.db.Error: PostgreSQL does not answer.
    """
    close_old_connections()
    try:
        return key_entries(_read_limits(), public_ids)
    except BaseException:
        connection.close()
        raise


def close_connection() -> None:
    """Close the calling thread's database connection."""
    connection.close()


def _read_limits() -> dict[str, list[Limit]]:
    """Return quota limits by subject."""
    by_subject: dict[str, list[Limit]] = {}
    for limit in quota_limits():
        by_subject.setdefault(limit.subject, []).append(limit)
    return by_subject


def _read_deployments(
    limits: dict[str, list[Limit]],
) -> tuple[dict[str, DeploymentEntry], dict[int, str]]:
    """Return live deployments by name, and the reasons of recently recalled ones by ID."""
    # Before the query, so that no lease seems to end later than it does.
    now = time.monotonic()
    rows = live_or_recalled(timezone.now() - _RECALL_REMEMBERED)
    rows = rows.prefetch_related("release__departments", _REPLICAS, _PLACEMENTS)
    deployments = list(
        rows.annotate(classification=classification_expression("release__version__"))
    )
    verdicts = serving_verdicts([row.release for row in deployments])
    prices = tariffs()
    live: dict[str, DeploymentEntry] = {}
    recalled: dict[int, str] = {}
    for row in deployments:
        verdict = verdicts[row.release_id]
        if row.state not in LIVE:
            recalled[row.pk] = _obstacle(verdict)
            continue
        try:
            live[row.name] = _deployment_entry(
                row,
                verdict,
                now + (row.lease_s or 0.0),  # type: ignore[attr-defined]  # annotated
                tuple(limits.get(f"deployment:{row.name}", ())),
                tariff_for(row.name, prices),
            )
        except Exception:
            # Leave this one out, so that it does not serve; the others are unaffected.
            logger.exception("Deployment %s cannot be read; it does not serve", row.name)
    return live, recalled


def _deployment_entry(
    row: Deployment,
    verdict: ServingVerdict,
    leased_until: float,
    limits: tuple[Limit, ...],
    tariff: Tariff,
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
    return DeploymentEntry(
        id=row.pk,
        name=row.name,
        department=row.department.slug,
        release=release.pk,
        digest=version.digest,
        task=version.model.task,
        expires_at=0.0 if end is None else end.timestamp(),
        created_at=row.created_at.timestamp(),
        ready_until=max(
            (_ready_until(replica, version.digest) for replica in row.replicas.all()), default=0.0
        ),
        leased_until=leased_until,
        obstacle=_obstacle(verdict) or conditions.obstacle,
        resource=Resource(
            type="deployment",
            id=str(row.pk),
            name=row.name,
            department=row.department.slug,
            attributes=attributes,
        ),
        limits=limits + conditions.limits,
        tariff=tariff,
        approved_until=_approved_until(release, emergency),
        only=conditions.only,
        limits_of=conditions.limits_of,
        notice=end_notice(release) if emergency is None else emergency_access_notice(emergency),
        emergency_access=emergency is not None,
        workers=tuple(sorted(_addressable(row.replicas.all(), version.digest))),
        ready_workers=tuple(
            sorted(
                _addressable(
                    (each for each in row.replicas.all() if each.state == ReplicaState.READY),
                    version.digest,
                )
            )
        ),
        keeps_prefixes=release.engine in KEEP_PREFIXES,
        realms=frozenset(_reading(row)),
        unit=task_unit(version.model.task),
        own_prompt=own_prompt(version),
        may_sleep=row.replicas_min == 0,
        load_s=max((replica.load_seconds or 0.0 for replica in row.replicas.all()), default=0.0),
    )


def task_unit(task: str) -> Unit:
    """Return the unit in which requests for a task are metered; tokens for an unknown task."""
    declaration = TASKS.get(task)
    return Unit.TOKENS if declaration is None else declaration.unit


def _approved_until(release: Release, emergency: EmergencyAccess | None) -> float:
    end = release.expires_at if emergency is None else emergency.ends_at
    return 0.0 if end is None else end.timestamp()


def _obstacle(verdict: ServingVerdict) -> str:
    return "" if verdict.refusal is None else verdict.refusal.message


def _addressable(replicas: Iterable[Replica], digest: str) -> Iterator[str]:
    """Yield addresses of workers that a request may reach. They include workers that are loading,
    since these may read the queue before the next snapshot, but not silent ones, nor those whose
    heartbeats stopped because the deployment moved away.
    """
    now = time.time()
    for replica in replicas:
        loading = replica.state == ReplicaState.LOADING and replica.public_key  # type: ignore[attr-defined]  # annotated above
        until = _patience(replica) if loading else _ready_until(replica, digest)
        on_node = "/" in replica.worker
        if until > now and (replica.realm or not on_node):  # type: ignore[attr-defined]
            realm = replica.realm if on_node else ""  # type: ignore[attr-defined]
            yield worker_address(realm, replica.public_key)  # type: ignore[attr-defined]


def _reading(row: Deployment) -> Iterator[str]:
    """Yield realms of workers that may read the queue. They return messages not sealed for them."""
    places: list[Replica | Placement] = list(row.placements.all())
    places += [place for place in row.replicas.all() if place.state in _HELD]
    for place in places:
        if "/" not in place.worker:
            yield ""
        elif place.realm:  # type: ignore[union-attr]  # annotated above
            yield place.realm  # type: ignore[union-attr]


def _ready_until(replica: Replica, digest: str) -> float:
    if not replica.public_key:  # type: ignore[attr-defined]
        return 0.0
    if replica.state != ReplicaState.READY or replica.loaded_digest != digest:
        return 0.0
    return _patience(replica)


def _patience(replica: Replica) -> float:
    return replica.heartbeat_at.timestamp() + REPLICA_PATIENCE_S
