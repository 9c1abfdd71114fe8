"""Errors of the management API, all as RFC 9457 problems: https://www.rfc-editor.org/rfc/rfc9457.

Members that the standard does not define: `code` (stable, for programs), `hint` (how to fix it),
`request_id`, and `errors`, one {field, detail} per wrong field.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    ValidationError,
)
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from redis.exceptions import RedisError
from rest_framework import exceptions as drf
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from assay.api.authentication import Caller
from assay.conflicts import conflict_of
from governance.audit.refusals import attempted, refusal_record
from governance.errors import (
    DomainError,
    InvalidInput,
    NotFound,
    NotPermitted,
    TooLarge,
    Unavailable,
)
from governance.principals import ANONYMOUS, request_context
from registry.storage.folder import DISK_FULL

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
# Prefixes of paths whose errors are problems.
PATHS = ("/api/", "/node/")
MAX_ERRORS = 50
MAX_TEXT = 500
CHALLENGE = 'Bearer realm="assay"'


def problem(
    request: HttpRequest,
    *,
    status: int,
    code: str,
    detail: str,
    title: str = "",
    hint: str = "",
    errors: Iterable[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> JsonResponse:
    """Return a problem as a response; `type` is a path under `/problems/` for each code."""
    body: dict[str, Any] = {
        "type": f"/problems/{code.replace('_', '-')}",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.path[:MAX_TEXT],
        "code": code,
        "hint": hint,
        "request_id": request_context.get().request_id,
        "errors": [dict(error) for error in errors][:MAX_ERRORS],
    }
    response = JsonResponse(body, status=status, content_type=CONTENT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def from_domain_error(error: DomainError, request: HttpRequest) -> JsonResponse:
    """Return a service's refusal as a problem."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = CHALLENGE
    return problem(
        request,
        status=error.status,
        code=error.code,
        title=error.title,
        detail=error.message,
        hint=error.hint,
        errors=[
            {"field": field, "detail": sentence}
            for field, sentences in error.fields.items()
            for sentence in sentences
        ],
        headers=headers,
    )


def from_framework_error(error: drf.APIException, request: HttpRequest) -> JsonResponse:
    """Return an error of Django REST framework as a problem."""
    headers = {}
    if isinstance(error, drf.Throttled):
        headers["Retry-After"] = str(max(1, math.ceil(getattr(error, "wait", None) or 1)))
    if error.status_code == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = CHALLENGE
    code = error.get_codes()
    return problem(
        request,
        status=error.status_code,
        code=code if isinstance(code, str) else error.default_code,
        detail=str(error.detail)[:MAX_TEXT],
        headers=headers,
    )


def translate(error: Exception) -> DomainError | None:
    """Return the refusal for an error of Django or a store; None for an internal error."""
    match error:
        case DomainError():
            return error
        case Http404():
            return NotFound("There is nothing at this address.")
        case PermissionDenied():
            return NotPermitted("This is not permitted.")
        case RequestDataTooBig():
            return TooLarge("The request body is too large.")
        case SuspiciousOperation():
            return InvalidInput("The request is malformed.")
        case ValidationError():
            return InvalidInput(" ".join(error.messages)[:MAX_TEXT])
        case DataError():
            return InvalidInput("A value is out of bounds.")
        case IntegrityError():
            return conflict_of(error)
        case OperationalError() if (conflict := conflict_of(error)) is not None:
            return conflict
        case OSError(errno=number) if number in DISK_FULL:
            return Unavailable(
                "A disk of the server is full; nothing was stored.",
                code="disk_full",
                hint="Free room under ASSAY_DATA_DIR, then try again.",
                retry_after=60,
            )
        case OperationalError() | InterfaceError() | RedisError():
            return Unavailable(
                "A store that this needs does not answer.",
                hint="Try again shortly; operators can run `assay doctor` to see which one.",
                retry_after=5,
            )
        case _:
            return None


def exception_handler(error: Exception, context: Mapping[str, Any]) -> JsonResponse:
    """Return any exception of a view as a problem, after auditing a refused attempt. DRF's hook."""
    request: HttpRequest = context["request"]._request
    if isinstance(error, drf.APIException):
        response = from_framework_error(error, request)
        if isinstance(error, drf.MethodNotAllowed):
            response.headers["Allow"] = ", ".join(context["view"].allowed_methods)
        else:
            refuse_change(framework_refusal(error), context["request"])
        return response
    refusal = translate(error)
    if refusal is None:
        return server_error(request, error)
    if refusal is not error and not isinstance(error, Http404):
        logger.warning("%s %s was refused", request.method, request.path, exc_info=error)
    refuse_change(refusal, context["request"])
    return from_domain_error(refusal, request)


def framework_refusal(error: drf.APIException) -> DomainError:
    """Return the framework's refusal in the form for the audit log."""
    refusal = DomainError(str(error.detail)[:MAX_TEXT], code=error.default_code)
    refusal.status = error.status_code
    return refusal


def refuse_change(error: DomainError, request: Request) -> None:
    """Audit a refused change, including one refused before any service: a hidden object, a
    malformed request, or an anonymous caller.
    """
    if error.attempt is None and request.method not in SAFE_METHODS:
        # Not `request.user`, which would check the refused credential again.
        user = getattr(request, "_user", None)
        actor = user.principal if isinstance(user, Caller) else ANONYMOUS
        error.attempt = attempted(
            actor, surface="api", method=str(request.method), path=request.path
        )
    record_refusal(error)


def record_refusal(error: DomainError) -> None:
    """Audit a refused attempt. The refusal stands even if the log cannot be written."""
    try:
        refusal_record(error)
    except Exception:
        logger.exception("A refusal could not be audited: %s", error.message)


def server_error(request: HttpRequest, error: BaseException | None = None) -> JsonResponse:
    """Return 500 without details; they are logged under the request's ID."""
    identity = request_context.get().request_id
    logger.error("%s %s failed (%s)", request.method, request.path, identity, exc_info=error)
    return problem(
        request,
        status=500,
        code="internal_error",
        detail="An internal error occurred; this request changed nothing.",
        hint=f"Give an operator the request ID {identity}; the log has the details.",
    )


def malformed(request: HttpRequest) -> JsonResponse:
    """Return 400 for a request that was refused before any view."""
    return from_domain_error(InvalidInput("The request is malformed."), request)


@csrf_exempt
def not_found(request: HttpRequest, *_args: object, **_kwargs: object) -> JsonResponse:
    """Return 404 for paths that are not endpoints. Exempt from Django's CSRF check, which would
    answer before this view, and with a page about a form.
    """
    return from_domain_error(
        NotFound("There is no such endpoint.", hint="The endpoints are listed at /api/docs/."),
        request,
    )
