"""Usage: per day, and by deployment, department and key."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import F

from assay.portal.http import Screen
from assay.portal.reads import usage_days
from assay.portal.series import request_bars, unit_bars
from governance.quotas.selectors import alerts_now
from governance.usage.selectors import (
    GROUPS,
    UNIT_SUMS,
    units_of,
    usage_of_period,
    usage_totals_visible_to,
    whole_sum,
)
from governance.usage.units import PRICED_BY_UNIT, Unit

TITLES = (("deployment", "Deployment"), ("department", "Department"), ("key", "API key"))
PERIODS = (7, 30, 90)
EMPTY = "Requests through the gateway are metered and show here by deployment, department and key."
NAMELESS = {"deployment": "Jobs", "department": "Personal tokens", "key": "Jobs"}


class Usage(Screen):
    """Usage per day, and by deployment, department or key."""

    template_name = "portal/usage.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        choice = self.request.GET.get("days", "")
        period = int(choice) if choice in {str(days) for days in PERIODS} else 30
        by = self.request.GET.get("by", "")
        by = by if by in GROUPS else "deployment"
        all_requests = usage_totals_visible_to(self.actor, days=period).filter(jobs=False)
        days = usage_days(all_requests, period)
        totals = {unit: sum(day["units"].get(unit, 0) for day in days) for unit in Unit}
        # Tokens and the units in use: each is another sum over all rows.
        amounts = {
            f"of_{unit}": UNIT_SUMS[f"of_{unit}"]
            for unit in Unit
            if totals[unit] or unit is Unit.TOKENS
        }
        kind, column = GROUPS[by]
        table = (
            usage_of_period(self.actor, kind, days=period)
            .values(group=F(column))
            .annotate(
                count=whole_sum("requests"),
                failed=whole_sum(F("requests") - F("answered")),
                prompt=whole_sum("prompt_tokens"),
                completion=whole_sum("completion_tokens"),
                device=whole_sum("device_ms"),
                cost=whole_sum("cost_micro"),
                took=whole_sum("total_ms"),
                **amounts,
            )
            .order_by("-count")[:100]
        )
        failed = sum(day["failed"] for day in days)
        return {
            "alerts": alerts_now(self.actor),
            "period": period,
            "periods": PERIODS,
            "by": by,
            "by_title": dict(TITLES)[by],
            "groups": TITLES,
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
    return {
        **row,
        "name": row["group"] or NAMELESS[by],
        "requests": row["count"],
        "time": row["took"] / row["count"],
        "other": ", ".join(other),
    }
