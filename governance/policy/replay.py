"""Dry run of a policy: repeat recorded decisions under its rules, and list those that differ."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from governance.audit.models import AuditEvent
from governance.audit.personal import opened_bodies
from governance.audit.selectors import audit_events_visible_to
from governance.errors import InvalidInput
from governance.permissions import Action
from governance.policy.decisions import Inputs
from governance.policy.engine import PolicySnapshot, decide
from governance.policy.lifecycle import POLICIES, version_snapshot
from governance.policy.selectors import policy_version_get
from governance.policy.sentences import action_words, actor_words
from governance.policy.services import active_policy, authorize
from governance.principals import Principal

LAST_MAX = 10_000
EXAMPLES = 5
GROUPS_MAX = 200
# Most events read for each decision, as events without one (such as sign-ins) are skipped.
SCAN_FACTOR = 5
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Flip:
    """A recorded decision that would differ. `recorded` is whether it was permitted at the time."""

    event: int
    occurred_at: datetime
    sentence: str
    recorded: bool
    allowed: bool
    reason: str


@dataclass(slots=True)
class FlipGroup:
    """Flips of one kind: the same action, to the same verdict, by the same rules."""

    action: str
    resource_type: str
    allowed: bool
    rules_before: tuple[str, ...]
    rules_after: tuple[str, ...]
    count: int = 0
    people: set[str] = field(default_factory=set)
    examples: list[Flip] = field(default_factory=list)


@dataclass(slots=True)
class Replay:
    """Result of a dry run. `before` and `after` are the numbers of the two policies.

    `replayed` counts the decisions that were repeated; `unreadable`, those without usable inputs;
    `drifted`, those that already differ under the policy in force, not because of the draft.
    """

    before: int
    after: int
    limit: int
    replayed: int = 0
    unreadable: int = 0
    drifted: int = 0
    flips: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    took_ms: int = 0
    groups: list[FlipGroup] = field(default_factory=list)

    @property
    def now_denied(self) -> int:
        """Number of permitted requests that would be denied."""
        return sum(group.count for group in self.groups if not group.allowed)

    @property
    def now_allowed(self) -> int:
        """Number of denied requests that would be permitted."""
        return sum(group.count for group in self.groups if group.allowed)


def policy_replay(*, actor: Principal, number: int, last: int = 1000) -> Replay:
    """Repeat the last recorded decisions that `actor` may see, under policy `number` and the one in
    force. A flip is a decision on which the two differ.

    Raises:
        NotFound, NotPermitted: the policy does not exist, or the actor may not explain decisions.
        InvalidInput: `last` is not 1 to `LAST_MAX`.
    """
    if not 1 <= last <= LAST_MAX:
        raise InvalidInput(
            f"A dry run repeats the last 1 to {LAST_MAX:,} decisions.",
            fields={"last": [f"is not 1 to {LAST_MAX:,}"]},
        )
    version = policy_version_get(actor=actor, number=number)
    authorize(actor=actor, action=Action.POLICY_EXPLAIN, resource=POLICIES.resource(version))
    return replayed(_recorded(actor, last), active_policy(), version_snapshot(version), last)


def replayed(
    events: Iterable[AuditEvent], before: PolicySnapshot, after: PolicySnapshot, last: int
) -> Replay:
    """Repeat up to `last` recorded decisions under two policies."""
    started = time.perf_counter()
    result = Replay(before=before.version, after=after.version, limit=last)
    groups: dict[tuple[object, ...], FlipGroup] = {}
    for event, body in _opened(events):
        decision = body["data"].get("decision")
        if decision is None:
            continue
        if result.replayed >= last:
            break
        try:
            inputs = Inputs.from_dict(decision)
            recorded = bool(decision["allowed"])
        except (ValueError, KeyError, TypeError):
            result.unreadable += 1
            continue
        result.replayed += 1
        result.newest = result.newest or event.occurred_at
        result.oldest = event.occurred_at
        _compare(event, inputs, recorded, (before, after), result, groups)
    result.groups = sorted(groups.values(), key=lambda group: -group.count)[:GROUPS_MAX]
    result.took_ms = int((time.perf_counter() - started) * 1000)
    return result


def _compare(
    event: AuditEvent,
    inputs: Inputs,
    recorded: bool,
    policies: tuple[PolicySnapshot, PolicySnapshot],
    result: Replay,
    groups: dict[tuple[object, ...], FlipGroup],
) -> None:
    now, then = (
        decide(policy, inputs.actor, inputs.action, inputs.resource, inputs.context)
        for policy in policies
    )
    result.drifted += now.allowed is not recorded
    if now.allowed is then.allowed:
        return
    result.flips += 1
    key = (inputs.action, inputs.resource.type, then.allowed, now.rules, then.rules)
    group = groups.get(key)
    if group is None:
        group = groups[key] = FlipGroup(
            inputs.action, inputs.resource.type, then.allowed, now.rules, then.rules
        )
    group.count += 1
    group.people.add(inputs.actor.name)
    if len(group.examples) < EXAMPLES:
        words = action_words(inputs.action, inputs.resource)
        group.examples.append(
            Flip(
                event=event.pk,
                occurred_at=event.occurred_at,
                sentence=f"{actor_words(inputs.actor)}: {words}",
                recorded=recorded,
                allowed=then.allowed,
                reason=then.reason,
            )
        )


def _opened(events: Iterable[AuditEvent]) -> Iterator[tuple[AuditEvent, dict[str, Any]]]:
    """Yield each event with its decrypted body; keys are read in batches."""
    source = iter(events)
    while chunk := list(islice(source, _CHUNK)):
        yield from zip(chunk, opened_bodies(chunk), strict=True)


def _recorded(actor: Principal, last: int) -> Iterator[AuditEvent]:
    events = audit_events_visible_to(actor).filter(policy_version__isnull=False)
    return iter(
        events.only("occurred_at", "sequence", "canonical", "leaf_hash")[
            : last * SCAN_FACTOR
        ].iterator(_CHUNK)
    )
