"""A release's dossier to take along, in several formats."""

from __future__ import annotations

import base64

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.written import CycloneDX, Page, Pdf, Spdx
from registry.releases.exports.services import FORMATS, Export, release_export

_ABOUT = " ".join(f"`{name}`: {each.title}. {each.about}" for name, each in FORMATS.items())
WHICH = OpenApiParameter(
    "file_format", str, OpenApiParameter.PATH, enum=list(FORMATS), description=_ABOUT
)


def as_file(export: Export) -> HttpResponse:
    """The export as a file to keep, with its digest (RFC 9530)."""
    digest = base64.b64encode(export.sha256).decode()
    return HttpResponse(
        export.content,
        content_type=export.content_type,
        headers={
            "Content-Disposition": f'attachment; filename="{export.name}"',
            "Repr-Digest": f"sha-256=:{digest}:",
            "Cache-Control": "no-store",
        },
    )


class ReleaseExportView(Endpoint):
    """The frozen dossier in one format."""

    renderer_classes = (Pdf, Page, *Endpoint.renderer_classes, CycloneDX, Spdx)

    @operation(
        "Releases",
        "The frozen dossier of a release as PDF, HTML, JSON, CycloneDX or SPDX",
        parameters=[WHICH],
        answer=OpenApiResponse(OpenApiTypes.BINARY, description="The same for the same dossier."),
    )
    def get(self, request: Request, release_id: int, file_format: str) -> HttpResponse:
        self.query()
        return as_file(release_export(actor=self.actor, release_id=release_id, format=file_format))
