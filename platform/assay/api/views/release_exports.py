"""A release's dossier to take along, in several formats."""

from __future__ import annotations

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.written import CycloneDX, Page, Pdf, Spdx
from assay.downloads import dossier_file
from registry.releases.exports.services import FORMATS

_ABOUT = " ".join(f"`{name}`: {each.title}. {each.about}" for name, each in FORMATS.items())
WHICH = OpenApiParameter(
    "file_format", str, OpenApiParameter.PATH, enum=list(FORMATS), description=_ABOUT
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
        return dossier_file(self.actor, release_id=release_id, file_format=file_format)
