"""Authenticate callers by bearer token (API key or personal access token) or portal session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from assay.middleware import principal_of
from governance.errors import NotAuthenticated, NotPermitted
from governance.keys.selectors import principal_for_token
from governance.keys.tokens import SENT_MAX
from governance.principals import Principal, PrincipalKind

if TYPE_CHECKING:
    # The framework's views import this module, by its name in the settings.
    from rest_framework.views import APIView


@dataclass(frozen=True, slots=True)
class Caller:
    """DRF's user object, with the principal only."""

    principal: Principal
    is_authenticated: bool = True


def bearer_token(request: HttpRequest) -> str | None:
    """Return the token in the Authorization header; None if there is no such header.

    Raises:
        NotAuthenticated: the header is not a bearer token.
    """
    header = request.headers.get("Authorization", "")
    if not header:
        return None
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > SENT_MAX:
        raise NotAuthenticated(
            "The Authorization header is not a bearer token.",
            hint="Send `Authorization: Bearer assay_…`.",
        )
    return token


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer assay_…`."""

    def authenticate(self, request: Request) -> tuple[Caller, None] | None:
        """Return the caller. Raises NotAuthenticated if the header is invalid."""
        token = bearer_token(request._request)
        if token is None:
            return None
        principal = principal_for_token(token)
        request._request.principal = principal  # type: ignore[attr-defined]
        return Caller(principal), None

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="assay"'


class SessionAuthentication(BaseAuthentication):
    """The portal's session cookie; unsafe methods also need its CSRF token."""

    def authenticate(self, request: Request) -> tuple[Caller, None] | None:
        """Return the caller. Raises NotPermitted if the CSRF token is missing or wrong."""
        principal = principal_of(request._request)
        if principal.kind == PrincipalKind.ANONYMOUS:
            return None
        self.enforce_csrf(request._request)
        return Caller(principal), None

    @staticmethod
    def enforce_csrf(request: HttpRequest) -> None:
        """Run Django's CSRF check, from which DRF exempts its views."""

        def unused(_request: HttpRequest) -> Any:
            raise AssertionError("the check never calls the view")

        check = CSRFCheck(unused)
        check.process_request(request)
        reason = check.process_view(request, unused, (), {})
        if reason:
            raise NotPermitted(
                f"The request was refused: {str(reason).rstrip('.')}.",
                code="csrf_failed",
                hint="Send the CSRF token in X-CSRFToken, or use a bearer token.",
            )


class HasPrincipal(BasePermission):
    """Requires an authenticated caller; the services decide what the caller may do."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return true. Raises NotAuthenticated for an anonymous caller."""
        if not isinstance(request.user, Caller):
            raise NotAuthenticated(
                "This needs a credential.",
                hint="Send `Authorization: Bearer assay_…`; `assay login` or POST "
                "/api/v1/auth/token gets one.",
            )
        return True
