"""Usage: per day, and by deployment, department and key."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import Avg, Count, F, Q, Sum

from assay.portal.http import Screen
from assay.portal.reads import usage_days
from assay.portal.series import request_bars, unit_bars
from governance.quotas.selectors import alerts_now
from governance.usage.records import JOBS
from governance.usage.selectors import UNIT_SUMS, beginning_of, units_of, usage_visible_to
from governance.usage.units import PRICED_BY_UNIT, Unit

GROUPS = (
    ("deployment", "Deployment"),
    ("department", "Department"),
    ("key_public_id", "API key"),
)
PERIODS = (7, 30, 90)
EMPTY = "Requests through the gateway are metered and show here by deployment, department and key."
NAMELESS = {"deployment": "Jobs", "department": "Personal tokens", "key_public_id": "Jobs"}


class Usage(Screen):
    """Usage per day, and by deployment, department or key."""

    template_name = "portal/usage.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        choice = self.request.GET.get("days", "")
        period = int(choice) if choice in {str(days) for days in PERIODS} else 30
        by = self.request.GET.get("by", "")
        by = by if by in dict(GROUPS) else "deployment"
        records = usage_visible_to(self.actor)
        days = usage_days(records.exclude(endpoint__startswith=JOBS), period)
        table = (
            records.filter(occurred_at__gte=beginning_of(period))
            .order_by()
            .values(name=F(by))
            .annotate(
                requests=Count("id"),
                failed=Count("id", filter=~Q(outcome="ok")),
                prompt=Sum("prompt_tokens"),
                completion=Sum("completion_tokens"),
                device=Sum("device_ms"),
                cost=Sum("cost_micro"),
                time=Avg("total_ms"),
                **UNIT_SUMS,
            )
            .order_by("-requests")[:100]
        )
        totals = {unit: sum(day["units"].get(unit, 0) for day in days) for unit in Unit}
        failed = sum(day["failed"] for day in days)
        return {
            "alerts": alerts_now(self.actor),
            "period": period,
            "periods": PERIODS,
            "by": by,
            "by_title": dict(GROUPS)[by],
            "groups": GROUPS,
            "table": [_row(dict(row), by) for row in table],
            "has_other": any(totals[unit] for unit in PRICED_BY_UNIT),
            "currency": settings.CURRENCY,
            "requests": (requests := sum(day["requests"] for day in days)),
            "charts": [
                {
                    "id": "requests",
                    "title": "Requests",
                    "total": requests,
                    "note": f" · {failed:,} failed or canceled",
                    "chart": request_bars(days),
                },
                # Tokens are always shown, other units where they are used.
                *(
                    {
                        "id": unit.value,
                        "title": unit.plural.capitalize(),
                        "total": totals[unit],
                        "chart": unit_bars(days, unit),
                    }
                    for unit in Unit
                    if unit is Unit.TOKENS or totals[unit]
                ),
            ],
            "empty_text": EMPTY,
        }


def _row(row: dict[str, Any], by: str) -> dict[str, Any]:
    """Return a row of the table; `other` is the use of units other than tokens."""
    units = units_of(row)
    other = [unit.words(units[unit]) for unit in PRICED_BY_UNIT if unit in units]
    return {**row, "name": row["name"] or NAMELESS[by], "other": ", ".join(other)}
