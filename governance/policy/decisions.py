"""Inputs of a decision as JSON: enough to repeat it under any other policy.

Imports no Django, so that the gateway writes the same JSON. Audit events contain it as
`data["decision"]`: `{"principal", "action", "resource", "context", "rules", "allowed"}`. The audit
log is the only record of decisions.
"""

from __future__ import annotations

import contextvars
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from datetime import time as time_of_day
from typing import Any

from governance.policy.engine import PolicyDecision, Resource
from governance.principals import (
    ActorRole,
    Principal,
    PrincipalKind,
    RequestContext,
    request_context,
)

# Only a resource with huge attributes exceeds this; its decision is recorded without inputs.
MAX_BYTES = 8 * 1024
MAX_ITEMS = 500
MAX_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs of `decide` other than the policy."""

    actor: Principal
    action: str
    resource: Resource
    context: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Inputs:
        """Parse the JSON that `inputs` wrote.

        Raises:
            ValueError: it is not the inputs of a decision.
        """
        try:
            principal, target = data["principal"], data["resource"]
            scopes = principal.get("scopes")
            actor = Principal(
                kind=PrincipalKind(principal["kind"]),
                id=str(principal["id"]),
                name=str(principal["name"]),
                department=principal.get("department"),
                roles=frozenset(
                    ActorRole(str(role), department, str(specialty))
                    for role, department, specialty in principal.get("roles", ())
                ),
                scopes=None if scopes is None else frozenset(scopes),
                person_id=principal.get("person_id"),
                key_id=principal.get("key_id"),
            )
            resource = Resource(
                type=str(target["type"]),
                id=str(target.get("id", "")),
                name=str(target.get("name", "")),
                department=target.get("department"),
                attributes=dict(target.get("attributes", {})),
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
    """Return the inputs of a decision as JSON; `Inputs.from_dict` reads it back.

    Inputs larger than `MAX_BYTES` become `{"omitted": …}`, which cannot be replayed.
    """
    return joined(principal_part(actor), action, resource_part(resource), context or {})


@dataclass(frozen=True, slots=True)
class Part:
    """A principal or resource as JSON, shared by all decisions about it. Do not change `value`."""

    value: dict[str, Any]
    size: int

    @classmethod
    def of(cls, value: dict[str, Any]) -> Part:
        """Return the part with its length as JSON in ASCII."""
        return cls(value, len(json.dumps(value, ensure_ascii=True)))


def principal_part(actor: Principal) -> Part:
    return Part.of(_principal(actor))


def resource_part(resource: Resource) -> Part:
    return Part.of(
        {
            "type": resource.type,
            "id": resource.id,
            "name": resource.name,
            "department": resource.department,
            "attributes": {str(k): _plain(v) for k, v in resource.attributes.items()},
        }
    )


def joined(
    principal: Part, action: str, resource: Part, context: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the same as `inputs`, from parts that were made before."""
    plain_context = {str(k): _plain(v) for k, v in context.items()}
    rest = {"principal": 0, "action": str(action), "resource": 0, "context": plain_context}
    size = len(json.dumps(rest, ensure_ascii=True)) - 2 + principal.size + resource.size
    if size > MAX_BYTES:
        return {"omitted": f"{size} bytes"}
    return {**rest, "principal": principal.value, "resource": resource.value}


@dataclass(frozen=True, slots=True)
class Authorization:
    """A decision with its inputs, which services pass to the audit events of the action."""

    decision: PolicyDecision
    inputs: Inputs

    @property
    def policy_version(self) -> int:
        """Number of the policy that decided."""
        return self.decision.policy_version

    def to_json(self) -> dict[str, Any]:
        """Return the decision and its inputs for an audit event."""
        source = self.inputs
        facts = inputs(source.actor, source.action, source.resource, source.context)
        return with_outcome(facts, self.decision)


def with_outcome(facts: dict[str, Any], decision: PolicyDecision) -> dict[str, Any]:
    """Return a decision and its inputs for an audit event."""
    return {**facts, "rules": list(decision.rules[:50]), "allowed": decision.allowed}


def _principal(actor: Principal) -> dict[str, Any]:
    roles = sorted(actor.roles, key=lambda r: (r.role, r.department or "", r.specialty))
    return {
        "kind": actor.kind.value,
        "id": actor.id,
        "name": actor.name,
        "department": actor.department,
        "roles": [[str(r.role), r.department, str(r.specialty)] for r in roles],
        "scopes": None if actor.scopes is None else sorted(actor.scopes),
        "person_id": actor.person_id,
        "key_id": actor.key_id,
    }


def _plain(value: Any) -> Any:
    """Return the value for JSON, where it compares as before; sets become sorted lists."""
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


# The last permission for a change. If a service refuses the request later, the surface records the
# refusal with this permission, because it cannot see the service's variables.
_latest: contextvars.ContextVar[tuple[Authorization, RequestContext] | None] = (
    contextvars.ContextVar("assay_latest_authorization", default=None)
)


def note_latest(authorization: Authorization) -> None:
    """Store a permission for a change, in case the same request is refused later."""
    if not authorization.inputs.action.endswith(":view"):
        _latest.set((authorization, request_context.get()))


def latest(actor: Principal) -> Authorization | None:
    """Return the actor's last permission for a change in this request; None outside a request."""
    authorization, request = _latest.get() or (None, None)
    current = request_context.get()
    if authorization is None or not current.request_id or request is not current:
        return None
    return authorization if authorization.inputs.actor == actor else None
