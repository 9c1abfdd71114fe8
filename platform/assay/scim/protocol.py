"""Base of all SCIM endpoints: the bearer token, strict parsing, errors in SCIM's format."""

from __future__ import annotations

import hmac
import logging
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from pydantic import ValidationError
from rest_framework.exceptions import ParseError
from rest_framework.permissions import SAFE_METHODS
from scim2_models import Context, Error, Resource, SCIMException

from assay.api.parsers import parse_json
from assay.api.problems import record_refusal, translate
from assay.scim.resources import TOLERANT
from assay.server.permits import permit_of
from governance import rowsecurity
from governance.audit.refusals import attempted
from governance.errors import DomainError, InvalidInput, NotAuthenticated, NotFound, TooLarge
from governance.people.provisioning import UNIQUENESS
from governance.principals import ANONYMOUS, request_context, service_principal

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/scim+json"
PROVIDER = service_principal("scim")
READ = frozenset({CONTENT_TYPE, "application/json"})

R = TypeVar("R", bound=Resource[Any])


def rendered(
    body: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None
) -> JsonResponse:
    """Return a response that must not be cached."""
    response = JsonResponse(body, status=status, content_type=CONTENT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def refusal(status: int, detail: str, scim_type: str = "", **headers: str) -> JsonResponse:
    """Return an error (RFC 7644 §3.12)."""
    error = Error(status=status, detail=detail[:1000], scim_type=scim_type or None)
    return rendered(error.model_dump(), status=status, headers=headers)


class ScimView(View):
    """An endpoint. A caller with the token is the identity provider; without a token in the
    settings SCIM is off."""

    @method_decorator(csrf_exempt)
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            self.authenticate()
            if (permit := permit_of(request)) is not None:
                self.allow_body()
                return permit.grant(PROVIDER)
            with rowsecurity.scope(PROVIDER):
                return super().dispatch(request, *args, **kwargs)
        except ValidationError as error:
            first = Error.from_validation_errors(error)[0]
            attributes = sorted({".".join(map(str, each["loc"])) for each in error.errors()})
            self.refused(InvalidInput(f"The resource is invalid: {', '.join(attributes)[:500]}."))
            return refusal(first.status or 400, first.detail or "", first.scim_type or "")
        except SCIMException as error:
            self.refused(InvalidInput("The request is not valid SCIM.", code="scim"))
            return refusal(error.status, error.detail, error.scim_type)
        except ParseError as error:
            self.refused(InvalidInput("The body could not be read."))
            return refusal(400, str(error.detail), "invalidSyntax")
        except RequestDataTooBig:
            self.refused(TooLarge("The request body is too large."))
            return refusal(413, "The request body is too large.")
        except Exception as error:
            return self.failed(error)

    def allow_body(self) -> None:
        """Permit the identity provider to send a larger body."""

    def failed(self, error: Exception) -> HttpResponse:
        """Return the refusal by a service, or log an internal error."""
        refusal_error = translate(error)
        if refusal_error is None:
            identity = request_context.get().request_id
            logger.error("SCIM %s failed (%s)", self.request.path, identity, exc_info=error)
            return refusal(500, f"An internal error occurred; request {identity}.")
        self.refused(refusal_error)
        headers = {}
        if refusal_error.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="assay-scim"'
        if refusal_error.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(refusal_error.retry_after)))
        sentence = " ".join(part for part in (refusal_error.message, refusal_error.hint) if part)
        return refusal(refusal_error.status, sentence, _scim_type(refusal_error), **headers)

    def refused(self, error: DomainError) -> None:
        """Audit a refused change; of refused reads, only those denied by the policy."""
        method = str(self.request.method)
        if error.attempt is None and method not in SAFE_METHODS and settings.SCIM_TOKEN:
            actor = ANONYMOUS if error.status == 401 else PROVIDER
            error.attempt = attempted(actor, surface="scim", method=method, path=self.request.path)
        record_refusal(error)

    def authenticate(self) -> None:
        """Raise NotFound if SCIM is off, and NotAuthenticated without the right token."""
        expected = settings.SCIM_TOKEN
        if not expected:
            raise NotFound("There is nothing at this address.")
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        presented = token.strip().encode("utf-8", "replace")
        if scheme.lower() != "bearer" or not hmac.compare_digest(presented, expected.encode()):
            raise NotAuthenticated("The bearer token is not valid for provisioning.")

    def http_method_not_allowed(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        names = (name for name in self.http_method_names if hasattr(self, name))
        allowed = ", ".join(name.upper() for name in names)
        return refusal(405, f"{request.method} is not supported here.", Allow=allowed)

    def body(self) -> Any:
        """Parse the request's JSON.

        Raises:
            ParseError: it is malformed.
            TooLarge: it is too large.
            InvalidInput: it has another content type.
        """
        if self.request.content_type not in READ:
            raise InvalidInput(f"Send the body as {CONTENT_TYPE} or application/json.")
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 2 * 1024 * 1024
        body = self.request.body
        if len(body) > limit:
            raise TooLarge(f"The body is larger than {limit:,} bytes.")
        try:
            return parse_json(body.decode("utf-8"))
        except UnicodeDecodeError:
            raise ParseError("The body is not UTF-8.") from None

    def resource(self, model: type[R], context: Context) -> R:
        """Parse the resource in the body, tolerating Entra's deviations.

        Raises:
            ValidationError: it is invalid; the error names the attributes.
        """
        body = self.body()
        with TOLERANT:
            return model.model_validate(body, scim_ctx=context)

    @property
    def base(self) -> str:
        """URL of this service, with its final slash."""
        return self.request.build_absolute_uri("/scim/v2/")


def _scim_type(error: DomainError) -> str:
    if error.code == UNIQUENESS:
        return "uniqueness"
    return "invalidValue" if error.status == 400 else ""
