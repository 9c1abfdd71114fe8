"""Errors in OpenAI's format, `{"error": {"message", "type", "param", "code"}}`, or in Anthropic's
under `/v1/messages`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from governance.errors import DomainError, Unavailable
from workers.wire import Done

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
MESSAGES = "/v1/messages"
_MESSAGE_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class NoSuchPath(DomainError):
    """The path does not exist (404)."""

    code = "unknown_url"
    status = 404
    title = "Not found"


class WrongMethod(DomainError):
    """The path does not support the method (405)."""

    code = "method_not_allowed"
    status = 405
    title = "Method not allowed"

    def __init__(self, message: str, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.allowed = allowed


class InternalError(DomainError):
    """An unexpected error in Assay (500). The details are in the log under the request's ID."""

    code = "internal_error"
    status = 500
    title = "Internal error"


class WrongContentType(DomainError):
    """The body is not declared as JSON (415)."""

    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"


class EngineFailed(DomainError):
    """The worker refused the request or failed; the status and the sentence are the worker's.

    `used` has the counts to charge, if the worker reported them.
    """

    code = "engine_failed"
    status = 500
    title = "Engine failed"

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int,
        used: Done | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.used = used
        self.status = status if 400 <= status <= 599 else 500


class NoUsableKey(DomainError):
    """No worker of the deployment has a key to seal the request for (503)."""

    code = "unavailable"
    status = 503
    title = "Unavailable"


class ReplyForged(DomainError):
    """A reply did not come from a worker of the deployment (502)."""

    code = "reply_forged"
    status = 502
    title = "Reply forged"


class DeadlinePassed(DomainError):
    """No answer within the gateway's time limit (504)."""

    code = "timeout"
    status = 504
    title = "Timed out"


class DeadlineUnreachable(Unavailable):
    """Too many requests wait for this one to be answered in time (503); nothing is charged."""

    code = "deadline_unreachable"


class StreamPaused(DeadlinePassed):
    """The engine sent no token for longer than the deployment's limit (504)."""

    code = "stream_paused"
    title = "Stream paused"


def error_body(error: DomainError) -> dict[str, dict[str, str | None]]:
    """Return the error in OpenAI's format; the hint follows the sentence."""
    message = f"{error.message} {error.hint}".strip()
    return {
        "error": {
            "message": message,
            "type": _TYPES.get(error.status, "api_error"),
            "param": getattr(error, "param", None),
            "code": error.code,
        }
    }


def error_json(error: DomainError, path: str = "") -> bytes:
    """Return the error in the format of the endpoint at `path`, as UTF-8 JSON."""
    body: Mapping[str, object] = error_body(error)
    if is_messages(path):
        body = message_error(error)
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def error_event(error: DomainError, path: str = "") -> bytes:
    """Return the error as the last event of a stream."""
    name = b"event: error\n" if is_messages(path) else b""
    return name + b"data: " + error_json(error, path) + b"\n\n"


def is_messages(path: str) -> bool:
    """Return true if the path is one of Anthropic's API."""
    return path == MESSAGES or path.startswith(f"{MESSAGES}/")


def message_error(error: DomainError) -> dict[str, object]:
    """Return the error in Anthropic's format, with `code` and `param` as in OpenAI's."""
    fault = error_body(error)["error"]
    kind = _MESSAGE_TYPES.get(error.status)
    fault["type"] = kind or ("invalid_request_error" if error.status < 500 else "api_error")
    return {"type": "error", "error": fault}


def error_headers(error: DomainError) -> list[tuple[bytes, bytes]]:
    """Return the headers of an error, such as `retry-after` in whole seconds, `allow`, and
    `x-should-retry: false` if a retry cannot help."""
    headers: list[tuple[bytes, bytes]] = []
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="assay"'))
    if isinstance(error, WrongMethod):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    wait = math.inf if error.retry_after is None else error.retry_after
    if math.isfinite(wait):
        headers.append((b"retry-after", str(max(1, math.ceil(wait))).encode()))
    # OpenAI's client retries after these statuses unless this header forbids it. After any finite
    # wait a retry may succeed; each client decides how long it waits.
    if error.status in {409, 429} and (getattr(error, "budget", False) or wait == math.inf):
        headers.append((b"x-should-retry", b"false"))
    return headers
