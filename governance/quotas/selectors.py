"""The limits in force."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet

from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from governance.quotas.models import QuotaLimit


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: on a department (its slug), or on one key of it (its public id as well)."""

    department: str
    key_public_id: str | None
    kind: str
    limit: int


def quota_limits() -> list[Limit]:
    """Every limit, for the gateway's snapshot. All that apply to a request must have room."""
    rows = QuotaLimit.objects.select_related("department", "api_key__department")
    limits: list[Limit] = []
    for row in rows:
        owner = row.api_key.department if row.api_key else row.department
        limits.append(
            Limit(
                department=owner.slug if owner else "",
                key_public_id=row.api_key.public_id if row.api_key else None,
                kind=row.kind,
                limit=row.limit,
            )
        )
    return limits


def quotas_visible_to(actor: Principal) -> QuerySet[QuotaLimit]:
    """The limits that `actor` may see."""
    rows = QuotaLimit.objects.select_related("department", "api_key__department")
    return visible_to(actor, Action.QUOTA_VIEW, rows, resource_type="quota")
