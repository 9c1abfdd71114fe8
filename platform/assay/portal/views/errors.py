"""Error pages: a sentence, a hint, and a link back."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from assay.middleware import principal_of
from governance.audit.refusals import attempted, refusal_record
from governance.errors import NotPermitted


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Refuse a form without its CSRF token; `CSRF_FAILURE_VIEW` names this view."""
    refusal = NotPermitted("The form was sent without its CSRF token.", code="csrf_failed")
    method, path = str(request.method), request.path
    refusal.attempt = attempted(principal_of(request), surface="portal", method=method, path=path)
    refusal_record(refusal)
    return render(request, "portal/errors/csrf.html", status=403)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Handler for 400."""
    return render(request, "portal/errors/400.html", status=400)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Handler for 403."""
    return render(request, "portal/errors/403.html", status=403)


def page_not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Handler for 404."""
    return render(request, "portal/errors/404.html", status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Handler for 500, rendered without the request: the database may be what failed."""
    return HttpResponse(render_to_string("portal/errors/500.html"), status=500)
