"""Where each surface is mounted. `/v1/*` never comes here: `assay.asgi` hands it to the gateway."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path, re_path

from assay.api import docs, problems
from assay.portal.views import errors

urlpatterns = [
    path("api/v1/", include("assay.api.urls")),
    path("api/schema/", docs.SchemaView.as_view(), name="schema"),
    path("api/docs/", docs.page, name="docs"),
    path("api/docs/start.js", docs.start, name="docs-start"),
    re_path(r"^api(/|$)", problems.not_found),
    path("scim/v2/", include("assay.scim.urls")),
    path("", include("assay.accounts.urls")),
    path("", include("assay.portal.urls", namespace="portal")),
]

handler403 = errors.permission_denied
handler404 = errors.page_not_found


def handler400(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """A request that no view should see, such as one for an unknown host name."""
    if request.path.startswith("/api/"):
        return problems.malformed(request)
    return errors.bad_request(request, exception)


def handler500(request: HttpRequest) -> HttpResponse:
    """A fault outside of any view: a problem for programs, a page for people."""
    if request.path.startswith("/api/"):
        return problems.server_error(request)
    return errors.server_error(request)
