"""What a decision was made of, as JSON: enough to make it again, under any other policy.

Knows no Django, so that the gateway writes the same. Stands in audit events as `data["decision"]`:
`{"principal", "action", "resource", "context", "rules", "allowed"}`. The audit log is the record of
decisions; there is no second table.
"""

from __future__ import annotations

import contextvars
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from datetime import time as time_of_day
from typing import Any

from governance.policy.engine import PolicyDecision, Resource
from governance.principals import (
    HeldRole,
    Principal,
    PrincipalKind,
    RequestContext,
    request_context,
)

# Beyond this, a resource with huge attributes; its decision is recorded without what it was of.
MAX_BYTES = 8 * 1024
MAX_ITEMS = 500
MAX_TEXT = 2000
# A process without requests does one thing after another as the same actor: what it was let do so
# long ago is not what it records now.
KEPT_S = 60.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that `decide` takes beside the policy."""

    actor: Principal
    action: str
    resource: Resource
    context: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Inputs:
        """The inputs that `inputs` wrote.

        Raises:
            ValueError: it is not that.
        """
        try:
            who, what = data["principal"], data["resource"]
            scopes = who.get("scopes")
            actor = Principal(
                kind=PrincipalKind(who["kind"]),
                id=str(who["id"]),
                name=str(who["name"]),
                department=who.get("department"),
                roles=frozenset(
                    HeldRole(str(role), department, str(speciality))
                    for role, department, speciality in who.get("roles", ())
                ),
                scopes=None if scopes is None else frozenset(scopes),
                person_id=who.get("person_id"),
                key_id=who.get("key_id"),
            )
            resource = Resource(
                type=str(what["type"]),
                id=str(what.get("id", "")),
                name=str(what.get("name", "")),
                department=what.get("department"),
                attributes=dict(what.get("attributes", {})),
            )
            return cls(actor, str(data["action"]), resource, dict(data.get("context") or {}))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"these are not the inputs of a decision: {error!r}") from error


def inputs(
    actor: Principal,
    action: str,
    resource: Resource,
    context: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a decision is made of, as JSON; `Inputs.from_dict` reads it back.

    What is larger than `MAX_BYTES` is `{"omitted": …}`, which cannot be replayed.
    """
    found = {
        "principal": _principal(actor),
        "action": str(action),
        "resource": {
            "type": resource.type,
            "id": resource.id,
            "name": resource.name,
            "department": resource.department,
            "attributes": {str(k): _plain(v) for k, v in resource.attributes.items()},
        },
        "context": {str(k): _plain(v) for k, v in (context or {}).items()},
    }
    size = len(json.dumps(found, ensure_ascii=True))
    return found if size <= MAX_BYTES else {"omitted": f"{size} bytes"}


def decision_data(decision: PolicyDecision, asked: Inputs) -> dict[str, Any]:
    """A decision with its inputs, as an audit event keeps it."""
    return {
        **inputs(asked.actor, asked.action, asked.resource, asked.context),
        "rules": list(decision.rules[:50]),
        "allowed": decision.allowed,
    }


def _principal(actor: Principal) -> dict[str, Any]:
    held = sorted(actor.roles, key=lambda r: (r.role, r.department or "", r.speciality))
    return {
        "kind": actor.kind.value,
        "id": actor.id,
        "name": actor.name,
        "department": actor.department,
        "roles": [[str(r.role), r.department, str(r.speciality)] for r in held],
        "scopes": None if actor.scopes is None else sorted(actor.scopes),
        "person_id": actor.person_id,
        "key_id": actor.key_id,
    }


def _plain(value: Any) -> Any:
    """`value` as JSON holds it, comparing as it did: sets become sorted lists."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (datetime, date, time_of_day)):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return [_plain(item) for item in sorted(value, key=str)[:MAX_ITEMS]]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value[:MAX_ITEMS]]
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in list(value.items())[:MAX_ITEMS]}
    return str(value)[:MAX_TEXT]


@dataclass(frozen=True, slots=True)
class _Pending:
    """An allowed decision that waits for the audit event of the change it lets through."""

    decision: PolicyDecision
    asked: Inputs
    request: RequestContext
    at: float


_pending: contextvars.ContextVar[_Pending | None] = contextvars.ContextVar(
    "assay_pending_decision", default=None
)


# The last permission to change something: what a refusal that comes after it was about.
_latest: contextvars.ContextVar[_Pending | None] = contextvars.ContextVar(
    "assay_latest_decision", default=None
)


def remember(decision: PolicyDecision, asked: Inputs) -> None:
    """Keep a decision for the next audit event of the same actor, request and policy."""
    kept = _Pending(decision, asked, request_context.get(), time.monotonic())
    _pending.set(kept)
    if not asked.action.endswith(":view"):
        _latest.set(kept)


def latest(actor: Principal) -> tuple[PolicyDecision, Inputs] | None:
    """What the actor was last let change in this request; None outside of one."""
    kept = _latest.get()
    request = request_context.get()
    if (
        kept is None
        or not request.request_id
        or kept.request is not request
        or kept.asked.actor != actor
    ):
        return None
    return kept.decision, kept.asked


def consume(actor: Principal, policy_version: int | None) -> dict[str, Any] | None:
    """The decision that is kept for this event, once; None when it belongs to another."""
    pending = _pending.get()
    if (
        pending is None
        or pending.asked.actor != actor
        or pending.decision.policy_version != policy_version
        or pending.request is not request_context.get()
        or time.monotonic() - pending.at > KEPT_S
    ):
        return None
    _pending.set(None)
    return decision_data(pending.decision, pending.asked)
