"""The only errors that a service raises on purpose.

Each surface (management API, gateway, portal, command line) renders a `DomainError` in its own
format. Callers receive no other error, and so never a stack trace.
"""

from __future__ import annotations

from typing import Any

from governance.english import field_text


class AttemptBase:
    """Base of `governance.audit.services.Attempt`, which an error carries."""

    __slots__ = ()


class DomainError(Exception):
    """A refusal: what was refused, why, and how to fix it.

    Args:
        message: A whole sentence that names the object, its state and what was refused.
        hint: Advice for the caller; empty when there is nothing to do.
        fields: For invalid input, sentences for each invalid field.
        retry_after: Seconds after which a retry may succeed.
        attempt: Actor, action and object; the surface audits it after the transaction's rollback.
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
    """Malformed or out-of-bounds request (400). A text of `fields` may lack its subject.

    `malformed` is true if the input does not match its schema. Otherwise it breaks a rule that a
    schema cannot express: between fields, or about an object, a time or the content of a file.
    """

    code = "invalid_input"
    status = 400
    title = "Invalid input"

    def __init__(
        self,
        message: str,
        *,
        fields: dict[str, list[str]] | None = None,
        malformed: bool = False,
        **details: Any,
    ) -> None:
        texts = {name: [*map(field_text, each)] for name, each in (fields or {}).items()}
        super().__init__(message, fields=texts, **details)
        self.malformed = malformed


class NotAuthenticated(DomainError):
    """Missing or invalid credential (401)."""

    code = "not_authenticated"
    status = 401
    title = "Not authenticated"


class NotPermitted(DomainError):
    """Action forbidden by a policy, a role or separation of duties (403)."""

    code = "policy_denied"
    status = 403
    title = "Not permitted"


class NotFound(DomainError):
    """Object that does not exist, or that the caller may not see (404)."""

    code = "not_found"
    status = 404
    title = "Not found"


class WrongState(DomainError):
    """Action that the object's state does not allow (409)."""

    code = "wrong_state"
    status = 409
    title = "Wrong state"


class TooLarge(DomainError):
    """Request over a limit on size or count (413)."""

    code = "too_large"
    status = 413
    title = "Too large"


class QuotaExceeded(DomainError):
    """Exhausted quota of requests, tokens or money (429)."""

    code = "quota_exceeded"
    status = 429
    title = "Quota exceeded"


class Unavailable(DomainError):
    """Unavailable store that the decision needs; the request fails closed (503)."""

    code = "unavailable"
    status = 503
    title = "Unavailable"
