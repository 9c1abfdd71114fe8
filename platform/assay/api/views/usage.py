"""Cost of requests."""

from __future__ import annotations

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Line, Moment, StrictSerializer
from assay.api.representations.governance import UsageAnswer
from assay.api.representations.quotas import UsageDaysAnswer
from governance.bounds import DEPARTMENT_MAX, NAME_MAX
from governance.errors import InvalidInput
from governance.usage.selectors import GROUPS, usage_grouped, usage_visible_to


class UsageQuery(StrictSerializer):
    """Filters of the list; `since` is inclusive, `until` exclusive."""

    department = Line(max_length=DEPARTMENT_MAX, required=False)
    deployment = Line(max_length=NAME_MAX, required=False)
    key = Line(max_length=16, required=False)
    since = Moment(required=False)
    until = Moment(required=False)


COLUMNS = {
    "department": "department",
    "deployment": "deployment",
    "key": "key_public_id",
    "since": "occurred_at__gte",
    "until": "occurred_at__lt",
}


class UsageDaysQuery(StrictSerializer):
    """How many days, today included, and what to sum by."""

    days = Line(max_length=3, required=False)
    by = Choice(choices=[(name, name) for name in GROUPS], required=False)


class UsageDaysView(Endpoint):
    """The ledger's sums."""

    @operation("Usage", "Sums per day", query=UsageDaysQuery, answer=UsageDaysAnswer)
    def get(self, request: Request) -> Response:
        given = self.query(UsageDaysQuery)
        text, by = given.get("days", "30"), given.get("by")
        if not (text.isascii() and text.isdigit()):
            raise InvalidInput("days is a number.", fields={"days": ["Not a whole number."]})
        rows = usage_grouped(self.actor, int(text), by)
        answer = {"currency": settings.CURRENCY, "by": by, "days": rows}
        return self.answer(answer, UsageDaysAnswer)


class UsageView(Endpoint):
    """The ledger."""

    @operation("Usage", "List settled requests", query=UsageQuery, answer=UsageAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(UsageQuery)
        filters = {COLUMNS[name]: value for name, value in given.items()}
        return self.page(usage_visible_to(self.actor).filter(**filters), UsageAnswer)
