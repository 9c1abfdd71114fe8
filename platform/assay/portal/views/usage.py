"""Usage: per day, and by deployment, department and key."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import Avg, Count, F, Q, Sum

from assay.portal.http import Screen
from assay.portal.reads import usage_days
from assay.portal.series import usage_bars
from governance.quotas.selectors import alerts_now
from governance.usage.records import JOBS
from governance.usage.selectors import beginning_of, usage_visible_to

GROUPS = (
    ("deployment", "Deployment"),
    ("department", "Department"),
    ("key_public_id", "API key"),
)
PERIODS = (7, 30, 90)
NAMELESS = {"deployment": "Jobs", "department": "Personal tokens", "key_public_id": "Jobs"}


class Usage(Screen):
    """What was used, by whom."""

    template_name = "portal/usage.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        given = self.request.GET.get("days", "")
        period = int(given) if given in {str(days) for days in PERIODS} else 30
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
            )
            .order_by("-requests")[:100]
        )
        return {
            "alerts": alerts_now(self.actor),
            "period": period,
            "periods": PERIODS,
            "by": by,
            "by_title": dict(GROUPS)[by],
            "groups": GROUPS,
            "table": [{**row, "name": row["name"] or NAMELESS[by]} for row in table],
            "currency": settings.CURRENCY,
            "requests": sum(day["requests"] for day in days),
            "tokens": sum(day["tokens"] for day in days),
            "failed": sum(day["failed"] for day in days),
            "requests_chart": usage_bars(days, tokens=False),
            "tokens_chart": usage_bars(days),
        }
