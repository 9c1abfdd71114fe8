"""Queries of the portal alone, on rows that the contexts' selectors let the actor see."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.db.models import F, Q, QuerySet
from django.db.models.functions import TruncDate

from assay.portal.access import may, may_somewhere
from governance.audit.alarms import alarms_visible_to
from governance.audit.models import AuditAlarm
from governance.database.narrow import narrowed
from governance.errors import NotFound, NotPermitted
from governance.permissions import Action
from governance.policy.models import PolicyState, PolicyVersion
from governance.principals import Principal
from governance.usage.models import UsageTotal
from governance.usage.selectors import UNIT_SUMS, beginning_of, units_of, whole_sum
from governance.usage.units import Unit
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.emergency_access.selectors import emergency_accesses_to_review


def after_reviews(actor: Principal) -> list[EmergencyAccess]:
    """Return emergency accesses that the actor may review afterward, the most pressing first."""
    if not may_somewhere(actor, Action.RELEASE_DECIDE, kind="release"):
        return []
    mine = Q(asked_by_id=actor.person_id) | Q(confirmed_by_id=actor.person_id)
    mine |= Q(excluded_people__contains=[actor.person_id])
    rows = narrowed(
        emergency_accesses_to_review(actor).exclude(mine),
        *("due_at", "ended_at", "department__name", "asked_by__name", "confirmed_by__name"),
        *("release__deployment_name", "release__version__number", "release__version__model__name"),
    )
    return list(rows[:20])


def policies_awaiting(actor: Principal) -> int:
    """Return the number of proposed policies that the actor may decide on."""
    if actor.person_id is None or not may(actor, Action.POLICY_DECIDE, kind="policy"):
        return 0
    waiting = PolicyVersion.objects.filter(state=PolicyState.PROPOSED)
    return waiting.exclude(authors__contains=[actor.person_id]).count()


def audit_alarms(actor: Principal) -> list[AuditAlarm]:
    """Return current alarms of the audit log; none for people who may not see all of it."""
    try:
        return alarms_visible_to(actor)
    except (NotFound, NotPermitted):
        return []


def usage_days(totals: QuerySet[UsageTotal], days: int) -> list[dict[str, Any]]:
    """Return requests, tokens and other units per day for the last `days` days, today last; days
    without use have zeros. `totals` are sums of these days."""
    first = beginning_of(days).date()
    rows: Iterable[Any] = (
        totals.annotate(day=TruncDate("at"))
        .values("day")
        .annotate(
            failed=whole_sum(F("requests") - F("answered")),
            requests=whole_sum("requests"),
            **UNIT_SUMS,
        )
    )
    by_day = {row["day"]: {"units": units_of(row), **row} for row in rows}
    span = [first + timedelta(days=offset) for offset in range(days)]
    filled = [
        {"requests": 0, "failed": 0, "units": {}, **by_day.get(day, {}), "day": day} for day in span
    ]
    return [{**row, "tokens": row["units"].get(Unit.TOKENS, 0)} for row in filled]
