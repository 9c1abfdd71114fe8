"""How far the audit log is streamed to each SIEM."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from governance.audit.streaming.selectors import audit_streams_visible_to


class AuditStreamAnswer(serializers.Serializer[Any]):
    """One stream. `state` is waiting (it has not begun), streaming, behind or failing;
    `next_sequence` is null until it has begun. Every event before that one was accepted, `reduced`
    of them as number and hash alone. `lag_s` is the age of the oldest one that was not."""

    name = serializers.CharField()
    address = serializers.CharField()
    format = serializers.CharField()
    personal_data = serializers.BooleanField()
    encrypted = serializers.BooleanField()
    state = serializers.CharField()
    next_sequence = serializers.IntegerField(allow_null=True)
    sent_at = serializers.DateTimeField(allow_null=True)
    failing_since = serializers.DateTimeField(allow_null=True)
    last_error = serializers.CharField()
    reduced = serializers.IntegerField()
    lag_events = serializers.IntegerField()
    lag_s = serializers.FloatField()


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
