"""How far the audit log is streamed to each SIEM."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.representations.audit_streams import AuditStreamAnswer
from governance.audit.streaming.selectors import audit_streams_visible_to


class AuditStreamsView(Endpoint):
    """Destinations that are configured."""

    @operation(
        "Audit",
        "Streams of the log to a SIEM, and how far each is",
        answer=AuditStreamAnswer(many=True),
    )
    def get(self, request: Request) -> Response:
        self.query()
        return Response(self.rendered(audit_streams_visible_to(self.actor), AuditStreamAnswer))
