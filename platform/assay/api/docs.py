"""The API's description for people: Swagger UI from the vendored files, under the strict CSP."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.http import require_safe

FILES = "drf_spectacular_sidecar/swagger-ui-dist"

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Assay management API</title>
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


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """The page; nothing in it comes from another host, no script and no style stands in it."""
    return HttpResponse(
        format_html(
            PAGE,
            icon=static(f"{FILES}/favicon-32x32.png"),
            style=static(f"{FILES}/swagger-ui.css"),
            bundle=static(f"{FILES}/swagger-ui-bundle.js"),
            start=reverse("docs-start"),
            schema=reverse("schema"),
        )
    )


@require_safe
def start(request: HttpRequest) -> HttpResponse:
    """The script that draws it."""
    return HttpResponse(START, content_type="text/javascript; charset=utf-8")
