"""Questions that only the portal asks, over what the contexts' selectors let the actor see."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import TruncDate

from assay.portal.access import may
from governance.audit.alarms import alarms_visible_to
from governance.audit.models import AuditAlarm
from governance.errors import NotFound, NotPermitted
from governance.permissions import Action
from governance.policy.models import PolicyState, PolicyVersion
from governance.principals import Principal
from governance.reviews.models import Decision, Review, ReviewState, Verdict
from governance.reviews.selectors import reviews_visible_to
from governance.usage.selectors import beginning_of


def reviews_awaiting(actor: Principal) -> QuerySet[Review]:
    """Open reviews that need a vote the actor may still give, soonest due first."""
    if actor.person_id is None or not actor.specialities:
        return Review.objects.none()
    voted = Decision.objects.filter(
        review=OuterRef("pk"), person_id=actor.person_id, round=OuterRef("round")
    ).exclude(verdict=Verdict.COMMENT)
    return (
        reviews_visible_to(actor)
        .filter(
            ~Exists(voted),
            state=ReviewState.OPEN,
            required_approvals__has_any_keys=sorted(actor.specialities),
        )
        .exclude(opened_by_id=actor.person_id)
        .exclude(excluded_people__contains=[actor.person_id])
        .order_by("due_at")
    )


def policies_awaiting(actor: Principal) -> int:
    """How many proposed policies the actor may decide on."""
    if actor.person_id is None:
        return 0
    waiting = PolicyVersion.objects.filter(state=PolicyState.PROPOSED)
    count = waiting.exclude(authors__contains=[actor.person_id]).count()
    return count if count and may(actor, Action.POLICY_DECIDE, kind="policy") else 0


def audit_alarms(actor: Principal) -> list[AuditAlarm]:
    """What is wrong with the audit log now; nothing for who may not see all of it."""
    try:
        return alarms_visible_to(actor)
    except (NotFound, NotPermitted):
        return []


def usage_days(records: QuerySet[Any], days: int) -> list[dict[str, Any]]:
    """Requests and tokens a day for the last `days` days, today last, days without use as 0."""
    since = beginning_of(days)
    first = since.date()
    rows = (
        records.filter(occurred_at__gte=since)
        .annotate(day=TruncDate("occurred_at"))
        .order_by()
        .values("day")
        .annotate(
            requests=Count("id"),
            tokens=Sum(F("prompt_tokens") + F("completion_tokens")),
            failed=Count("id", filter=~Q(outcome="ok")),
        )
    )
    found = {row["day"]: row for row in rows}
    span = [first + timedelta(days=offset) for offset in range(days)]
    empty = {"requests": 0, "tokens": 0, "failed": 0}
    return [{**empty, **found.get(day, {}), "day": day} for day in span]
