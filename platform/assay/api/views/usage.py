"""What requests cost."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Line, Moment, StrictSerializer
from assay.api.representations.governance import UsageAnswer
from governance.usage.selectors import usage_visible_to


class UsageQuery(StrictSerializer):
    """Filters of the list; `since` is inclusive, `until` exclusive."""

    department = Line(max_length=40, required=False)
    deployment = Line(max_length=80, required=False)
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


class UsageView(Endpoint):
    """The ledger."""

    @operation("Usage", "List settled requests", query=UsageQuery, answer=UsageAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(UsageQuery)
        filters = {COLUMNS[name]: value for name, value in given.items()}
        return self.page(usage_visible_to(self.actor).filter(**filters), UsageAnswer)
