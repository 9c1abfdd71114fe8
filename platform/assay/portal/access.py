"""Permissions of the acting person, checked beforehand so that a page offers only actions that will
work.

Services check again: these functions only shape pages and protect nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet

from governance.people.models import Department
from governance.permissions import Action
from governance.policy.columns import COLUMNS
from governance.policy.context import probing_context
from governance.policy.engine import PolicySnapshot, Resource, decide
from governance.policy.services import active_policy
from governance.principals import Principal

# A condition on a missing attribute denies; these values mean "no particular owner".
_DEFAULTS: dict[str, Any] = {
    "owner": None,
    "responsible": None,
    "departments": [],
    "shared": False,
    "visibility": "",
}


def _allowed(
    snapshot: PolicySnapshot,
    actor: Principal,
    action: Action,
    kind: str,
    department: str | None,
    attributes: Mapping[str, Any] | None = None,
) -> bool:
    columns = dict.fromkeys(COLUMNS.get(kind, ()))
    values = {**columns, **_DEFAULTS, **(attributes or {})}
    resource = Resource(type=kind, department=department, attributes=values)
    return decide(snapshot, actor, action, resource, probing_context()).allowed


def may(
    actor: Principal,
    action: Action,
    *,
    kind: str,
    department: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> bool:
    """True when the policy in force allows `action` on such a resource."""
    return _allowed(active_policy(), actor, action, kind, department, attributes)


def departments_where(actor: Principal, action: Action, *, kind: str) -> QuerySet[Department]:
    """Return the departments in which the actor may do `action`."""
    snapshot = active_policy()
    allowed = [
        pk
        for pk, slug in Department.objects.values_list("pk", "slug")
        if _allowed(snapshot, actor, action, kind, slug)
    ]
    return Department.objects.filter(pk__in=allowed)


def may_somewhere(actor: Principal, action: Action, kind: str) -> bool:
    """True when the actor may do `action` platform-wide or in one of their departments."""
    snapshot = active_policy()
    places: list[str | None] = [None, *sorted(actor.departments)]
    return any(_allowed(snapshot, actor, action, kind, place) for place in places)
