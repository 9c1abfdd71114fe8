"""Routes of the surfaces, except `/v1/*`, which `assay.asgi` passes to the gateway."""

from __future__ import annotations

import sys

from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, include, path, re_path

from assay.api import docs, problems
from assay.portal.views import errors, sign_in
from assay.server.refusals import refusal_response
from governance.errors import Unavailable

urlpatterns = [
    path("api/v1/", include("assay.api.urls")),
    path("api/schema/", docs.SchemaView.as_view(), name="schema"),
    path("api/docs/", docs.page, name="docs"),
    path("api/docs/start.js", docs.start, name="docs-start"),
    path("api/inference/schema/", docs.inference_schema, name="inference-schema"),
    path("api/inference/docs/", docs.inference_page, name="inference-docs"),
    re_path(r"^api(/|$)", problems.not_found),
    path("node/v1/", include("assay.node_api.urls")),
    re_path(r"^node/v1(/|$)", problems.not_found),
    path("scim/v2/", include("assay.scim.urls")),
    # allauth requires these names.
    path("sign-in", sign_in.SignIn.as_view(), name="account_login"),
    path("sign-in/second-factor", sign_in.SecondFactor.as_view(), name="mfa_authenticate"),
    path("", include("assay.portal.urls", namespace="portal")),
]

handler403 = errors.permission_denied


def handler400(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer a request that is refused before any view, such as one with an unknown host name."""
    if request.path.startswith(problems.PATHS):
        return problems.malformed(request)
    return errors.bad_request(request, exception)


def handler404(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Answer programs at an unknown address with a problem. Only browsers name HTML among what they
    accept.
    """
    accepted = request.headers.get("Accept", "")
    if isinstance(exception, Resolver404) and "text/html" not in accepted:
        return problems.not_found(request)
    return errors.page_not_found(request, exception)


def handler500(request: HttpRequest) -> HttpResponse:
    """Answer with a problem for programs or a page for people; 503 if a store does not answer."""
    error = sys.exc_info()[1]
    refusal = problems.translate(error) if isinstance(error, Exception) else None
    if isinstance(refusal, Unavailable):
        return refusal_response(request.path, refusal)
    if request.path.startswith(problems.PATHS):
        return problems.server_error(request)
    return errors.server_error(request)
