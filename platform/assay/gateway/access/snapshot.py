"""Snapshot of policy, quotas and deployments: in memory, and complete; keys are read on demand.

A snapshot contains facts, and caches decisions that depend on nothing else; expiries are compared
with the clock at every request. Every `POLL_S` seconds, and within milliseconds of a message on
`SNAPSHOT_CHANNEL`, the changes since the last reading are read, and then what they name
(`reading.py`). A snapshot whose last reading is older than three times `GATEWAY_SNAPSHOT_TTL_S` is
not used.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.access.knowledge_entries import KnowledgeEntry
from governance.changes.reading import Position
from governance.permissions import Action
from governance.policy.engine import PolicyDecision, PolicySnapshot, decide
from governance.quotas.prices import Tariff
from governance.quotas.wire import Limit

# Decisions that are cached; the full cache is cleared.
DECISIONS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the database at `position`. `read_at`, on the monotonic clock, is a time at which it
    was up to date.

    `deployments` are the live primaries by name, `targets` those of each name in their order, and
    `names` the names of all of them by ID. `unread` are the IDs of
    deployments that may have changed and were not read again yet, the longest named first, with the
    time up to which they are known; `read_at` is the earliest of these times. `positioned_at` is
    the time of `position`.
    `recalled` maps the IDs of deployments that a recall stopped recently to the reason;
    `recalled_documents` maps the IDs of recalled document versions to their names. Requests that
    still use any of them are ended. `limits_by` has the limits by subject, and `prices` the tariffs
    by deployment.
    """

    keys: Mapping[str, KeyEntry]
    deployments: Mapping[str, DeploymentEntry]
    policy: PolicySnapshot
    read_at: float
    limits_by: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    recalled: Mapping[int, str] = field(default_factory=dict)
    knowledge: Mapping[str, KnowledgeEntry] = field(default_factory=dict)
    recalled_documents: Mapping[int, str] = field(default_factory=dict)
    prices: dict[str, Tariff] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    targets: Mapping[str, tuple[DeploymentEntry, ...]] = field(default_factory=dict)
    unread: Mapping[int, float] = field(default_factory=dict)
    positioned_at: float = float("-inf")
    position: Position | None = None
    decisions: dict[tuple[Any, ...], PolicyDecision] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def limits(self) -> tuple[Limit, ...]:
        return tuple(limit for limits in self.limits_by.values() for limit in limits)

    def named(self, name: str) -> tuple[DeploymentEntry, ...]:
        """Return the primary of this name and its targets."""
        primary = self.deployments.get(name)
        targets = self.targets.get(name, ())
        return targets if primary is None else (primary, *targets)

    def targets_of(self, primary: DeploymentEntry) -> tuple[DeploymentEntry, ...]:
        """Return the targets of a primary in their order. Those of an ended primary of the same
        name do not belong to it."""
        targets = self.targets.get(primary.name, ())
        return tuple(target for target in targets if target.target_of == primary.id)

    def entry(self, deployment_id: int) -> DeploymentEntry | None:
        """Return a live deployment, primary or target; None if it is not live."""
        for entry in self.named(self.names.get(deployment_id, "")):
            if entry.id == deployment_id:
                return entry
        return None

    def entries(self, ids: Iterable[int]) -> list[DeploymentEntry]:
        """Return the live ones of these deployments."""
        return [entry for pk in ids if (entry := self.entry(pk)) is not None]

    def every_entry(self) -> Iterator[DeploymentEntry]:
        """Yield all primaries and all targets."""
        yield from self.deployments.values()
        for targets in self.targets.values():
            yield from targets

    def decide(
        self, key: KeyEntry, entry: DeploymentEntry, context: Mapping[str, Any]
    ) -> PolicyDecision:
        """Decide whether `key` may invoke `entry`.

        Decisions are cached by the two entries, which never change in what a decision reads, and by
        the context attributes that rules read. A snapshot with another policy has an empty cache.
        """
        action = Action.DEPLOYMENT_INVOKE
        names = self.policy.index(action, entry.resource.type).context_names
        cache_key = (key.serial, entry.serial, *[context.get(name) for name in names])
        decision = self.decisions.get(cache_key)
        if decision is None:
            if len(self.decisions) >= DECISIONS_MAX:
                self.decisions.clear()
            decision = decide(self.policy, key.principal, action, entry.resource, context)
            self.decisions[cache_key] = decision
        return decision

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.read_at

    @property
    def usable(self) -> bool:
        """True while the snapshot is recent enough to decide by."""
        return self.age_s <= 3 * settings.GATEWAY_SNAPSHOT_TTL_S
