"""Keepers of checkpoints outside, the second place and the witnesses, and the progress of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from governance.audit.models import AuditCheckpoint, AuditKeeper
from governance.audit.outside.second_place import second_place
from governance.audit.outside.witnessing import witness_endpoints
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal


@dataclass(frozen=True, slots=True)
class Keeping:
    """One of them. `behind` is how many sealed events it does not cover yet."""

    name: str
    kind: str
    size: int
    behind: int
    reached_at: datetime | None
    fault: str
    contradicts: bool


def kept_outside(actor: Principal) -> list[Keeping]:
    """The second place, then the witnesses that the settings name; for who may see the whole log.

    Raises:
        NotFound, NotPermitted: the actor may not.
        ImproperlyConfigured: the settings name what is no place or no witness.
    """
    authorize(actor=actor, action=Action.AUDIT_VIEW, resource=Resource(type="audit"))
    place = second_place().name
    witnesses = {str(one.witness): one.witness.name for one in witness_endpoints()}
    rows = AuditKeeper.objects.in_bulk([place, *witnesses])
    latest = AuditCheckpoint.objects.values_list("tree_size", flat=True).first() or 0
    named = [(place, place, "second place")]
    named += [(key, name, "witness") for key, name in witnesses.items()]
    found = []
    for key, name, kind in named:
        row = rows.get(key) or AuditKeeper(key=key)
        found.append(
            Keeping(
                name=name,
                kind=kind,
                size=row.size,
                behind=max(0, latest - row.size),
                reached_at=row.reached_at,
                fault=row.fault.removeprefix(f"{key}: "),
                contradicts=row.contradicts,
            )
        )
    return found
