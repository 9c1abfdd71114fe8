"""Answers to requests that are refused before Django, in the format of the API, SCIM or portal."""

from __future__ import annotations

import math
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from assay.access_log import log_request
from assay.api.problems import PATHS, from_domain_error
from assay.gateway.access.call import new_request_id
from assay.gateway.http.asgi import Scope, Send, respond
from assay.gateway.http.errors import error_headers, error_json
from assay.scim.protocol import refusal as scim_refusal
from governance.errors import DomainError
from registry.catalog.endpoints import INFERENCE_PATHS

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


async def refuse(scope: Scope, send: Send, error: DomainError) -> None:
    """Send the refusal. The server then drops a limited part of the remaining body; closing the
    connection at once could cause a reset that destroys the answer.
    """
    path: str = scope["path"]
    request_id = new_request_id()
    # Its path was not matched with any route.
    log_request(
        scope["method"], "refused", error.status, 0.0, request_id=request_id, outcome=error.code
    )
    if path.startswith(INFERENCE_PATHS):
        own_headers = [(b"x-request-id", request_id.encode()), *error_headers(error)]
        await respond(send, error.status, error_json(error, path), own_headers)
        return
    response = refusal_response(path, error)
    headers = {**dict(response.items()), **_HEADERS, "x-request-id": request_id}
    headers["Content-Length"] = str(len(response.content))
    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": response.content})


def refusal_response(path: str, error: DomainError) -> HttpResponse:
    """Return a problem for the API, a SCIM error for SCIM, and a page for other paths."""
    request = HttpRequest()
    request.path = path
    if path.startswith(PATHS):
        return from_domain_error(error, request)
    if path.startswith("/scim/"):
        response: HttpResponse = scim_refusal(error.status, f"{error.message} {error.hint}".strip())
    else:
        response = refusal_page(error)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after))
    return response


def refusal_page(error: DomainError) -> HttpResponse:
    """Return the portal's error page, rendered without the database, which may be unavailable."""
    text = _page(error.title, error.status, error.message, error.hint)
    response = HttpResponse(text, status=error.status)
    directives = settings.CONTENT_SECURITY_POLICY["DIRECTIVES"].items()
    response.headers["Content-Security-Policy"] = "; ".join(
        f"{name} {' '.join(sources)}" for name, sources in directives
    )
    return response


@lru_cache(maxsize=64)
def _page(title: str, status: int, message: str, hint: str) -> str:
    # Cached, because most refusals occur under high load.
    error = {"title": title, "status": status, "message": message, "hint": hint}
    return render_to_string("portal/errors/refused.html", {"error": error})
