"""The one family of errors that a service may raise on purpose.

A surface (management API, gateway, portal, command line) renders a `DomainError` in its own wire
shape; nothing else may reach a caller, so that a stack trace never does.
"""

from __future__ import annotations


class AttemptBase:
    """Base of `governance.audit.services.Attempt`, which an error carries."""

    __slots__ = ()


class DomainError(Exception):
    """Something was refused. Says what, why, and what mends it.

    Args:
        message: A whole sentence that names the object, its state and what was refused.
        hint: What the caller can do about it; empty when there is nothing to do.
        fields: For invalid input, a sentence for each field that is wrong.
        retry_after: Seconds after which trying again may help.
        attempt: Who tried what on what; the surface audits it once the transaction is rolled back.
    """

    code = "refused"
    status = 400
    title = "Refused"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str = "",
        fields: dict[str, list[str]] | None = None,
        retry_after: float | None = None,
        attempt: AttemptBase | None = None,
    ) -> None:
        super().__init__(message)
        self.attempt = attempt
        self.message = message
        self.hint = hint
        self.fields = fields or {}
        self.retry_after = retry_after
        if code is not None:
            self.code = code


class InvalidInput(DomainError):
    """The request is malformed or out of bounds (400)."""

    code = "invalid_input"
    status = 400
    title = "Invalid input"


class NotAuthenticated(DomainError):
    """No credential, or one that is not valid (401)."""

    code = "not_authenticated"
    status = 401
    title = "Not authenticated"


class NotPermitted(DomainError):
    """A policy, a role or separation of duties forbids it (403)."""

    code = "policy_denied"
    status = 403
    title = "Not permitted"


class NotFound(DomainError):
    """It does not exist, or the caller may not know that it does (404)."""

    code = "not_found"
    status = 404
    title = "Not found"


class WrongState(DomainError):
    """The object's state does not allow it (409)."""

    code = "wrong_state"
    status = 409
    title = "Wrong state"


class TooLarge(DomainError):
    """Over a bound on size or count (413)."""

    code = "too_large"
    status = 413
    title = "Too large"


class QuotaExceeded(DomainError):
    """A request, token or money limit is used up (429)."""

    code = "quota_exceeded"
    status = 429
    title = "Quota exceeded"


class Unavailable(DomainError):
    """A store that the decision needs does not answer; fails closed (503)."""

    code = "unavailable"
    status = 503
    title = "Unavailable"
