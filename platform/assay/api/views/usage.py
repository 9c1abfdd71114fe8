"""Usage and cost of requests."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from assay.api.representations.governance import UsageAnswer
from assay.api.representations.quotas import UsageDaysAnswer
from assay.api.routes import Routes
from governance.principals import Principal
from governance.usage.models import UsageRecord
from governance.usage.schemas import UsageDaysFilter, UsageFilter
from governance.usage.selectors import usage_grouped, usage_visible_to

routes = Routes("Usage", UsageAnswer)


@routes.list("usage", "List settled requests")
def list_usage(actor: Principal, query: UsageFilter) -> QuerySet[UsageRecord]:
    return query.applied(usage_visible_to(actor))


@routes.get("usage/days", "Get usage sums per day", answer=UsageDaysAnswer)
def days(actor: Principal, query: UsageDaysFilter) -> dict[str, Any]:
    sums = usage_grouped(actor, query.days, query.by)
    return {"currency": settings.CURRENCY, "by": query.by, "days": sums}
