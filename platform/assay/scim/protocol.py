"""Common part of every SCIM endpoint: the bearer token, strict reading, errors in SCIM's shape."""

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
    """One answer."""
    response = JsonResponse(body, status=status, content_type=CONTENT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def refusal(status: int, detail: str, scim_type: str = "", **headers: str) -> JsonResponse:
    """An error (RFC 7644 §3.12)."""
    error = Error(status=status, detail=detail[:1000], scim_type=scim_type or None)
    return rendered(error.model_dump(), status=status, headers=headers)


class ScimView(View):
    """An endpoint. Whoever presents the token is the identity provider; without a token in the
    settings there is no SCIM here at all."""

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
            wrong = sorted({".".join(map(str, each["loc"])) for each in error.errors()})
            self.refused(InvalidInput(f"The resource is invalid: {', '.join(wrong)[:500]}."))
            return refusal(first.status or 400, first.detail or "", first.scim_type or "")
        except SCIMException as error:
            self.refused(InvalidInput("The request is not one of SCIM's.", code="scim"))
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
        """Let the identity provider send a body of some size."""

    def failed(self, error: Exception) -> HttpResponse:
        """A refusal of the services, or a fault of our own that is logged."""
        refused = translate(error)
        if refused is None:
            identity = request_context.get().request_id
            logger.error("SCIM %s failed (%s)", self.request.path, identity, exc_info=error)
            return refusal(500, f"Something went wrong on our side; request {identity}.")
        self.refused(refused)
        headers = {}
        if refused.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="assay-scim"'
        if refused.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(refused.retry_after)))
        sentence = " ".join(part for part in (refused.message, refused.hint) if part)
        return refusal(refused.status, sentence, _scim_type(refused), **headers)

    def refused(self, error: DomainError) -> None:
        """Audit what was refused; of what only reads, what the policy refused."""
        method = str(self.request.method)
        if error.attempt is None and method not in SAFE_METHODS and settings.SCIM_TOKEN:
            actor = ANONYMOUS if error.status == 401 else PROVIDER
            error.attempt = attempted(actor, surface="scim", method=method, path=self.request.path)
        record_refusal(error)

    def authenticate(self) -> None:
        """Raises NotFound where SCIM is off, NotAuthenticated without the right token."""
        expected = settings.SCIM_TOKEN
        if not expected:
            raise NotFound("There is nothing at this address.")
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        given = token.strip().encode("utf-8", "replace")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, expected.encode()):
            raise NotAuthenticated("The bearer token is not the one that provisioning needs.")

    def http_method_not_allowed(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        names = (name for name in self.http_method_names if hasattr(self, name))
        allowed = ", ".join(name.upper() for name in names)
        return refusal(405, f"{request.method} is not supported here.", Allow=allowed)

    def body(self) -> Any:
        """The request's JSON.

        Raises:
            ParseError, TooLarge, InvalidInput: it is none, too large, or called something else.
        """
        if self.request.content_type not in READ:
            raise InvalidInput(f"The body is sent as {CONTENT_TYPE} or application/json.")
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 2 * 1024 * 1024
        body = self.request.body
        if len(body) > limit:
            raise TooLarge(f"The body is larger than {limit:,} bytes.")
        try:
            return parse_json(body.decode("utf-8"))
        except UnicodeDecodeError:
            raise ParseError("The body is not UTF-8.") from None

    def resource(self, model: type[R], context: Context) -> R:
        """The resource in the body, Entra's liberties allowed.

        Raises:
            ValidationError: naming what is wrong.
        """
        body = self.body()
        with TOLERANT:
            return model.model_validate(body, scim_ctx=context)

    @property
    def base(self) -> str:
        """The address of this service, with its last slash."""
        return self.request.build_absolute_uri("/scim/v2/")


def _scim_type(error: DomainError) -> str:
    if error.code == UNIQUENESS:
        return "uniqueness"
    return "invalidValue" if error.status == 400 else ""
