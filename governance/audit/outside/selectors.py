"""Progress of the outside keepers of checkpoints: the second place and the witnesses."""

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
class KeeperState:
    """State of a keeper. `behind` is the number of sealed events that it does not cover yet."""

    name: str
    kind: str
    size: int
    behind: int
    reached_at: datetime | None
    fault: str
    contradicts: bool


def keeper_states(actor: Principal) -> list[KeeperState]:
    """Return the second place, then the configured witnesses, for readers of the whole log.

    Raises:
        NotFound, NotPermitted: the actor may not read the whole log.
        ImproperlyConfigured: the settings have an invalid place or witness.
    """
    authorize(actor=actor, action=Action.AUDIT_VIEW, resource=Resource(type="audit"))
    place = second_place().name
    witnesses = {str(e.witness): e.witness.name for e in witness_endpoints()}
    rows = AuditKeeper.objects.in_bulk([place, *witnesses])
    latest = AuditCheckpoint.objects.values_list("tree_size", flat=True).first() or 0
    keepers = [(place, place, "second place")]
    keepers += [(key, name, "witness") for key, name in witnesses.items()]
    states = []
    for key, name, kind in keepers:
        row = rows.get(key) or AuditKeeper(key=key)
        states.append(
            KeeperState(
                name=name,
                kind=kind,
                size=row.size,
                behind=max(0, latest - row.size),
                reached_at=row.reached_at,
                fault=row.fault.removeprefix(f"{key}: "),
                contradicts=row.contradicts,
            )
        )
    return states
