"""Exports of selected audit events, made in the background: the caller's own."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, StrictSerializer
from assay.api.idempotency import idempotent
from assay.api.views.audit import AuditQuery
from assay.api.written import File
from assay.downloads import audit_export_file
from governance.audit.exports.models import ExportFormat
from governance.audit.exports.services import (
    audit_export_ask,
    audit_export_cancel,
    audit_export_get,
    audit_exports_of,
)


class AuditExportAnswer(serializers.Serializer[Any]):
    """An export of selected events. `percent` and `rows` grow while it runs; `sha256` and `size`
    are of the file, which is there while it is done and until `expires_at`."""

    id = serializers.IntegerField()
    format = serializers.CharField()
    filter = serializers.JSONField(source="filters")
    state = serializers.CharField()
    percent = serializers.IntegerField()
    rows = serializers.IntegerField()
    searched = serializers.IntegerField()
    tree_size = serializers.IntegerField(allow_null=True)
    size = serializers.IntegerField()
    sha256 = serializers.CharField()
    error = serializers.CharField()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)


class AuditExportAsk(StrictSerializer):
    """Events to export: the filters of the list of events, and the format. `csv` is a zip."""

    filter = AuditQuery(required=False)
    format = Choice(choices=ExportFormat.choices)


class AuditExportsView(Endpoint):
    """The caller's exports, newest first."""

    @operation("Audit", "List your exports of events", answer=AuditExportAnswer, paged=True)
    def get(self, request: Request) -> Response:
        self.query()
        return self.page(audit_exports_of(self.actor), AuditExportAnswer)

    @operation(
        "Audit",
        "Ask for an export of selected events, each with its proof",
        body=AuditExportAsk,
        answer=AuditExportAnswer,
        status=202,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        asked = self.body(AuditExportAsk)
        export = audit_export_ask(
            actor=self.actor,
            filters=dict(asked.get("filter") or {}),
            format=asked.get("format", ExportFormat.JSONL),
        )
        return self.answer(export, AuditExportAnswer, status=202)


class AuditExportStateView(Endpoint):
    """One export."""

    @operation("Audit", "One export of yours and its progress", answer=AuditExportAnswer)
    def get(self, request: Request, export_id: int) -> Response:
        self.query()
        return self.answer(
            audit_export_get(actor=self.actor, export_id=export_id), AuditExportAnswer
        )


class AuditExportCancelView(Endpoint):
    """End an export."""

    @operation("Audit", "Cancel an export that is not done", answer=AuditExportAnswer)
    def post(self, request: Request, export_id: int) -> Response:
        self.nothing()
        export = audit_export_cancel(actor=self.actor, export_id=export_id)
        return self.answer(export, AuditExportAnswer)


class AuditExportFileView(Endpoint):
    """The file of an export."""

    renderer_classes = (File, *Endpoint.renderer_classes)

    @operation(
        "Audit",
        "The file of an export that is done, for `assay audit verify`",
        answer=OpenApiResponse(OpenApiTypes.BINARY, description="JSON lines, or a zip."),
    )
    def get(self, request: Request, export_id: int) -> StreamingHttpResponse:
        self.query()
        return audit_export_file(request._request, self.actor, export_id)
