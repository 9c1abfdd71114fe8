"""The caller's own exports of selected audit events, created in the background."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers
from rest_framework.request import Request

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.renderers import File
from assay.api.routes import Routes
from assay.downloads import audit_export_file
from governance.audit.exports.models import AuditExport
from governance.audit.exports.schemas import NewAuditExport
from governance.audit.exports.services import (
    audit_export_cancel,
    audit_export_get,
    audit_export_request,
    audit_exports_of,
)
from governance.principals import Principal
from governance.schemas import Schema


class AuditExportAnswer(serializers.Serializer[Any]):
    """An export of selected events. `percent` and `rows` grow while it runs; `sha256` and `size`
    describe the file, which exists once the export is done and until `expires_at`."""

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


routes = Routes("Audit", AuditExportAnswer)


@routes.list("audit/exports", "List your exports of events")
def list_audit_exports(actor: Principal) -> QuerySet[AuditExport]:
    return audit_exports_of(actor)


@routes.create(
    "audit/exports", "Request an export of selected events, each with its proof", status=202
)
def create(actor: Principal, body: NewAuditExport) -> AuditExport:
    filters = body.filter.model_dump(exclude_unset=True) if body.filter else {}
    return audit_export_request(actor=actor, filters=filters, format=body.format)


@routes.get(
    "audit/exports/<id:export_id>",
    "Get one of your exports and its progress",
    name="audit_export_state_get",
)
def show(actor: Principal, export_id: int) -> AuditExport:
    return audit_export_get(actor=actor, export_id=export_id)


@routes.post("audit/exports/<id:export_id>/cancel", "Cancel an export that is not done")
def cancel(actor: Principal, export_id: int) -> AuditExport:
    return audit_export_cancel(actor=actor, export_id=export_id)


class AuditExportFileView(Endpoint):
    """The file of an export."""

    renderer_classes = (File, *Endpoint.renderer_classes)

    @operation(
        "Audit",
        "The file of an export that is done, for `assay audit verify`",
        answer=OpenApiResponse(OpenApiTypes.BINARY, description="JSON lines, or a zip."),
    )
    def get(self, request: Request, export_id: int) -> StreamingHttpResponse:
        self.query_as(Schema)
        return audit_export_file(request._request, self.actor, export_id)
