"""Alerts for budgets at 50, 80 and 100 percent, raised once per window.

Each alert is a row (for the portal and the API) and an audit event `quota:alert`, in one
transaction. Mail and webhooks are driven by these events.
"""

from __future__ import annotations

from django.conf import settings
from django.db import transaction

from governance.audit.services import Subject, audit_record
from governance.principals import background, service_principal
from governance.quotas.kinds import KINDS, THRESHOLDS, Window, amount_words, limit_words
from governance.quotas.models import QuotaAlert, QuotaLimit
from governance.quotas.selectors import LimitUse, uses

_BUDGETS = [kind.name for kind in KINDS.values() if kind.is_budget]
_CONTROLLER = service_principal("controller")


def alerts_raise() -> int:
    """Raise an alert for each threshold that a budget's use has reached; return the number raised.

    Raises:
        Unavailable: the quota store does not answer.
    """
    rows = list(
        QuotaLimit.objects.filter(kind__in=_BUDGETS, limit__gt=0).select_related(
            "department", "api_key__department"
        )
    )
    reached = [(use, _reached(use)) for use in uses(rows) if use.ready]
    reached = [(use, thresholds) for use, thresholds in reached if thresholds]
    windows = {_window(use) for use, _ in reached}
    raised_at_limit = {
        (limit_id, window, threshold): limit_then
        for limit_id, window, threshold, limit_then in QuotaAlert.objects.filter(
            window__in=windows
        ).values_list("limit_id", "window", "threshold", "limit_then")
    }
    raised = 0
    for use, thresholds in reached:
        # An alert under a lower limit does not count: raise it again under this limit.
        before = {t: raised_at_limit.get((use.row.pk, _window(use), t), -1) for t in thresholds}
        new = [t for t in thresholds if before[t] < use.row.limit]
        if new:
            raised += _raise(use, new)
    return raised


def _reached(use: LimitUse) -> list[int]:
    return [threshold for threshold in THRESHOLDS if use.used_percent >= threshold]


def _window(use: LimitUse) -> str:
    daily = KINDS[use.row.kind].window is Window.DAY
    return "" if use.at is None else f"{use.at:%Y-%m-%d}" if daily else f"{use.at:%Y-%m}"


@transaction.atomic
def _raise(use: LimitUse, thresholds: list[int]) -> int:
    """Add a row per threshold, but only one event, for the highest, to avoid three at once."""
    row, window = use.row, _window(use)
    # The limit may have been deleted or changed, or another controller may be raising its alert.
    unchanged = QuotaLimit.objects.filter(pk=row.pk, limit=row.limit)
    if not unchanged.select_for_update(of=("self",)).exists():
        return 0
    alerts = QuotaAlert.objects.filter(limit=row, window=window)
    alerts.filter(threshold__in=thresholds, limit_then__lt=row.limit).delete()
    new = sorted(set(thresholds) - set(alerts.values_list("threshold", flat=True)))
    for threshold in new:
        QuotaAlert.objects.create(
            limit=row,
            window=window,
            threshold=threshold,
            used=use.count.used,
            limit_then=row.limit,
        )
    if new:
        owner = row.api_key.department if row.api_key else row.department
        used = amount_words(row.kind, use.count.used, settings.CURRENCY)
        limit = limit_words(row.kind, row.limit, settings.CURRENCY)
        with background(f"quota-{row.pk}", _CONTROLLER):
            audit_record(
                actor=_CONTROLLER,
                action="quota:alert",
                subject=Subject("quota", str(row.pk), f"{row.kind} of {row.subject}"),
                department=owner.slug if owner else "",
                reason=f"{use.title} has used {used} of {limit}: {new[-1]}% in {window}.",
                data={
                    "kind": row.kind,
                    "subject": row.subject,
                    "window": window,
                    "threshold": new[-1],
                    "used": use.count.used,
                    "limit": row.limit,
                    "shadow": row.shadow,
                },
            )
    return len(new)
