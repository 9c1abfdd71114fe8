"""The API's description: OpenAPI for programs, and Swagger UI from vendored files for people."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import (
    OpenApiJsonRenderer,
    OpenApiJsonRenderer2,
    OpenApiYamlRenderer,
    OpenApiYamlRenderer2,
)
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from assay.api.inference_description import inference_description

FILES = "drf_spectacular_sidecar/swagger-ui-dist"

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{icon}">
<link rel="stylesheet" href="{style}">
</head>
<body>
<main id="swagger-ui"></main>
<script src="{bundle}"></script>
<script src="{start}" data-schema="{schema}"></script>
</body>
</html>
"""

START = """"use strict";
SwaggerUIBundle({
  url: document.currentScript.dataset.schema,
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  docExpansion: "none",
});
"""


@cache
def description() -> dict[str, Any]:
    """Return the OpenAPI document. Cached, since it takes a second and is public."""
    generator: Any = SchemaGenerator()  # type: ignore[no-untyped-call]
    document: dict[str, Any] = generator.get_schema(request=None, public=True)
    return document


class SchemaView(APIView):
    """The document, as JSON or YAML."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    renderer_classes = (
        OpenApiJsonRenderer2,
        OpenApiJsonRenderer,
        OpenApiYamlRenderer,
        OpenApiYamlRenderer2,
    )

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        return Response(description())


@csrf_exempt  # A POST gets 405 from `require_safe`, not the page about a rejected form.
@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """The page of the management API."""
    return _page("Assay management API", reverse("schema"))


@csrf_exempt
@require_safe
def inference_page(request: HttpRequest) -> HttpResponse:
    """The page of the inference API."""
    return _page("Assay inference API", reverse("inference-schema"))


@csrf_exempt
@require_safe
def inference_schema(request: HttpRequest) -> JsonResponse:
    """The document of the inference API."""
    return JsonResponse(inference_description())


def _page(title: str, schema: str) -> HttpResponse:
    """Return a page without inline scripts or styles, and without content of other hosts."""
    return HttpResponse(
        format_html(
            PAGE,
            title=title,
            icon=static(f"{FILES}/favicon-32x32.png"),
            style=static(f"{FILES}/swagger-ui.css"),
            bundle=static(f"{FILES}/swagger-ui-bundle.js"),
            start=reverse("docs-start"),
            schema=schema,
        )
    )


@csrf_exempt
@require_safe
def start(request: HttpRequest) -> HttpResponse:
    """The script that starts Swagger UI."""
    return HttpResponse(START, content_type="text/javascript; charset=utf-8")
