"""Read the snapshot, and bring it up to date. Everything here blocks: call it in one thread.

A reading of changes costs two small queries when nothing has changed: of the changes, and of the
policy's digest. What was named is read again. In addition, leases and heartbeats are read every few
seconds, because they are no changes; and a few deployments are read again each time, so that every
one is checked within a while even if no change named it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from heapq import nsmallest

from django.conf import settings
from django.db import connection
from django.utils import timezone

from assay.gateway.access.deployment_entries import (
    DeploymentEntry,
    deployment_ids,
    read_deployments,
    read_liveness,
    read_places,
)
from assay.gateway.access.key_entries import KeyEntry, key_entries, known_ids, playground_ids
from assay.gateway.access.knowledge_entries import (
    bases_of,
    read_knowledge,
    read_recalled_documents,
)
from assay.gateway.access.snapshot import Snapshot
from governance.changes.reading import Changes, changes_since
from governance.permissions import Action
from governance.policy.engine import PolicySnapshot
from governance.policy.services import active_policy
from governance.quotas.prices import Tariff
from governance.quotas.selectors import quota_limits, tariff_for, tariffs
from governance.quotas.wire import Limit
from workers.deployments.changed import deployments_moved, deployments_rejudged

# Period after a recall in which requests that still run on the deployment are found and ended.
_RECALL_REMEMBERED = timedelta(hours=1)
# Deployments that one reading reads: keys wait for no more than these.
CHUNK = 100
# The same while the snapshot is old, as at first: requests then wait for the reading.
FIRST_CHUNK = 500
# Deployments that each reading of leases reads again although no change named them, and at most as
# many that are refused.
CHECKED = 40


@dataclass(frozen=True, slots=True)
class Reading:
    """A newer snapshot, and how it differs: the public IDs of changed keys, the names of changed
    deployments, and the subjects of changed limits. With `whole`, anything may differ; with `lost`,
    any key too.
    """

    snapshot: Snapshot
    keys: frozenset[str] = frozenset()
    deployments: frozenset[str] = frozenset()
    limits: frozenset[str] = frozenset()
    whole: bool = False
    lost: bool = False


def read_snapshot() -> Snapshot:
    """Read everything but the keys. The number of queries grows with each `CHUNK` of deployments.

    Raises:
        django.db.Error: PostgreSQL does not answer.
    """
    snapshot = first_reading().snapshot
    while snapshot.unread:
        snapshot = advance(snapshot).snapshot
    return snapshot


def first_reading() -> Reading:
    """Read everything but keys and deployments, which are `unread`.

    Raises:
        django.db.Error: PostgreSQL does not answer.
    """
    read_at = time.monotonic()
    nothing = Snapshot(keys={}, deployments={}, policy=_read_policy(), read_at=float("-inf"))
    return _all_again(nothing, changes_since(None), read_at)


def advance(snapshot: Snapshot, *, liveness: bool = False) -> Reading:
    """Return `snapshot` with the changes since, or with the next `CHUNK` of them. With `liveness`,
    read leases and heartbeats too, and check some deployments.

    Raises:
        django.db.Error: PostgreSQL does not answer. `snapshot` is still valid.
    """
    read_at = time.monotonic()
    changes = changes_since(snapshot.position)
    if changes.lost or changes.of("department"):
        return _all_again(snapshot, changes, read_at)
    liveness = liveness or bool(changes.of("lease"))
    since = timezone.now() - _RECALL_REMEMBERED
    after = replace(snapshot, position=changes.position)
    keys = changes.of("key")
    if people := changes.numbers("person"):
        keys |= playground_ids(people)
    changed_limits, whole = frozenset[str](), False
    # A single small row decides on everything, so it is read each time.
    policy = _read_policy()
    if policy is not after.policy:
        after, whole = replace(after, policy=policy, decisions={}), True
    if changes.of("quota"):
        limits = _read_limits()
        changed_limits = _differing(after.limits_by, limits)
        after = replace(after, limits_by=limits)
    if changes.of("price"):
        after = _priced(after, tariffs())
    bases, documents = changes.numbers("knowledge"), changes.numbers("document")
    if bases or documents:
        bases |= bases_of(documents) if documents else set()
        recalled = read_recalled_documents(since)
        whole = whole or recalled.keys() != after.recalled_documents.keys()
        after = replace(
            after, knowledge=read_knowledge(after.knowledge, bases), recalled_documents=recalled
        )
    named = deployments_rejudged(changes, since) | _limited(after, changed_limits)
    moved, checked = deployments_moved(changes) - named - after.unread.keys(), set[int]()
    if len(moved) > CHUNK:
        moved, checked = set(), moved
    if liveness:
        named |= read_liveness(after.every_entry(), after.names)
        checked |= _to_check(after)
    # The longest named come first, so that none waits for others that change all the time. Checks
    # and present workers do not make the snapshot old.
    unread = dict(after.unread)
    for ids, since_when in ((named, snapshot.positioned_at), (checked, float("inf"))):
        for pk in ids:
            unread[pk] = min(since_when, unread.get(pk, since_when))
    size = FIRST_CHUNK if snapshot.age_s > settings.GATEWAY_SNAPSHOT_TTL_S else CHUNK
    chunk = set(itertools.islice(unread, size))
    after, deployments = _with_deployments(after, chunk, moved, since)
    whole = whole or after.recalled != snapshot.recalled
    unread = {pk: since_when for pk, since_when in unread.items() if pk not in chunk}
    after = replace(
        after,
        unread=unread,
        positioned_at=read_at,
        read_at=max(snapshot.read_at, min([read_at, *unread.values()])),
    )
    return Reading(after, frozenset(keys), deployments, changed_limits, whole)


def read_keys(
    limits: Mapping[str, tuple[Limit, ...]], public_ids: Collection[str]
) -> dict[str, KeyEntry]:
    """Read the credentials of these public IDs in two queries, omitting unknown ones.

    Raises:
        django.db.Error: PostgreSQL does not answer.
    """
    return key_entries(limits, public_ids)


def read_known_ids() -> list[str]:
    """Return the public IDs of all keys that requests may use.

    Raises:
        django.db.Error: PostgreSQL does not answer.
    """
    return known_ids()


def close_connection() -> None:
    """Close the calling thread's database connection."""
    connection.close()


def _all_again(snapshot: Snapshot, changes: Changes, read_at: float) -> Reading:
    """Return `snapshot` with everything read again but keys and deployments, which are `unread`.
    Until they are read, the earlier ones are used, as long as the snapshot is usable.
    """
    since = timezone.now() - _RECALL_REMEMBERED
    ids = [*deployment_ids(since), *snapshot.names, *snapshot.recalled]
    unread = dict.fromkeys(ids, snapshot.read_at)
    after = replace(
        snapshot,
        position=changes.position,
        policy=_read_policy(),
        limits_by=_read_limits(),
        knowledge=read_knowledge({}),
        recalled_documents=read_recalled_documents(since),
        prices=tariffs(),
        unread=unread,
        positioned_at=read_at,
        read_at=snapshot.read_at if unread else read_at,
        decisions={},
    )
    return Reading(after, whole=True, lost=True)


def _read_policy() -> PolicySnapshot:
    """Return the policy. Its rules are indexed in this thread rather than by the first request."""
    policy = active_policy()
    for action in (Action.DEPLOYMENT_INVOKE, Action.DEPLOYMENT_VIEW):
        policy.index(action, "deployment")
    return policy


def _read_limits() -> dict[str, tuple[Limit, ...]]:
    """Return quota limits by subject."""
    by_subject: dict[str, tuple[Limit, ...]] = {}
    for limit in quota_limits():
        by_subject[limit.subject] = (*by_subject.get(limit.subject, ()), limit)
    return by_subject


def _differing(
    before: Mapping[str, tuple[Limit, ...]], after: Mapping[str, tuple[Limit, ...]]
) -> frozenset[str]:
    """Return the subjects whose limits differ."""
    return frozenset(
        subject
        for subject in before.keys() | after.keys()
        if before.get(subject) != after.get(subject)
    )


def _limited(snapshot: Snapshot, subjects: Collection[str]) -> set[int]:
    """Return the IDs of the deployments among these subjects of limits."""
    names = (subject.partition(":") for subject in subjects)
    return {
        entry.id
        for kind, _, name in names
        if kind == "deployment"
        for entry in snapshot.named(name)
    }


def _priced(snapshot: Snapshot, prices: dict[str, Tariff]) -> Snapshot:
    def priced(entry: DeploymentEntry) -> DeploymentEntry:
        tariff = tariff_for(entry.name, prices, entry.provider_tariff)
        return entry if entry.tariff == tariff else replace(entry, tariff=tariff)

    return replace(
        snapshot,
        prices=prices,
        deployments={name: priced(entry) for name, entry in snapshot.deployments.items()},
        targets={name: tuple(map(priced, each)) for name, each in snapshot.targets.items()},
    )


def _to_check(snapshot: Snapshot) -> set[int]:
    """Return the IDs of the deployments that were judged longest ago, and of refused ones: a
    refusal for now, such as of a row that cannot be read, may end without a change."""
    entries = list(snapshot.every_entry())
    refused = [entry for entry in entries if entry.obstacle]
    oldest = nsmallest(CHECKED, entries, key=_judged_at) + nsmallest(
        CHECKED, refused, key=_judged_at
    )
    return {entry.id for entry in oldest}


def _judged_at(entry: DeploymentEntry) -> float:
    return entry.judged_at


def _with_deployments(
    snapshot: Snapshot, ids: Collection[int], moved: Collection[int], since: datetime
) -> tuple[Snapshot, frozenset[str]]:
    """Return `snapshot` with the deployments `ids` read again, and with the present workers of
    those in `moved`; and the names of all that changed."""
    in_memory = snapshot.entries(moved)
    if not ids and not in_memory:
        return snapshot, frozenset()
    recalled, gone = dict(snapshot.recalled), set[int]()
    entries = {entry.id: entry for entry in read_places(in_memory)}
    if ids:
        # A switch changes a primary and its targets at once, so that they are read together.
        ids = {*ids, *_of_same_names(snapshot, ids)}
        read = read_deployments(ids, since, snapshot.limits_by, snapshot.prices)
        for pk in ids:
            recalled.pop(pk, None)
        gone = set(ids) - read.live.keys()
        entries = {pk: entry for pk, entry in entries.items() if pk not in gone} | read.live
        recalled |= read.recalled
    after, changed = _with_entries(snapshot, entries, gone)
    return replace(after, recalled=recalled), changed


def _of_same_names(snapshot: Snapshot, ids: Collection[int]) -> set[int]:
    """Return the IDs of primaries that have targets, and of these targets, among whose names are
    those of `ids`."""
    names = {snapshot.names.get(pk, "") for pk in ids} & snapshot.targets.keys()
    return {entry.id for name in names for entry in snapshot.named(name)}


def _with_entries(
    snapshot: Snapshot, entries: Mapping[int, DeploymentEntry], gone: Collection[int]
) -> tuple[Snapshot, frozenset[str]]:
    """Return `snapshot` with these entries in place of earlier ones and without the deployments
    `gone`; and the names of all that changed."""
    deployments, names = dict(snapshot.deployments), dict(snapshot.names)
    targets = dict(snapshot.targets)
    changed = set[str]()
    for pk in (*gone, *entries):
        # Another deployment may have its name by now.
        name = names.pop(pk, None)
        if name is None:
            continue
        changed.add(name)
        if name in deployments and deployments[name].id == pk:
            del deployments[name]
        if name in targets:
            targets[name] = tuple(each for each in targets[name] if each.id != pk)
    for pk, entry in entries.items():
        names[pk] = entry.name
        changed.add(entry.name)
        if entry.target_of is None:
            deployments[entry.name] = entry
        else:
            same = (*targets.get(entry.name, ()), entry)
            targets[entry.name] = tuple(sorted(same, key=_place))
    for name in changed:
        if not targets.get(name):
            targets.pop(name, None)
    after = replace(snapshot, deployments=deployments, names=names, targets=targets)
    return after, frozenset(changed)


def _place(entry: DeploymentEntry) -> tuple[int, int]:
    return entry.position, entry.id
