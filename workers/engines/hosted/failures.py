"""Failures of providers, from the status or the body of their answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from workers.egress.connections import ProviderFailed
from workers.engines.hosted.shapes import parse

# Errors of a reader for an answer that is not in its shape, or nested too deeply.
MALFORMED = (ValueError, TypeError, AttributeError, KeyError, RecursionError)
# Kinds of errors about the credential, whose messages may quote it.
_CREDENTIAL = re.compile(r"\b(?:401|403)\b|authenticat|permission|api_?key")
# Errors of AWS about the time of a signature.
_WRONG_TIME = re.compile(rb"Signature (?:expired|not yet current)|RequestTimeTooSkewed")


def malformed(error: Exception) -> ProviderFailed:
    """Return the failure for an answer that is not in the provider's shape."""
    return ProviderFailed(f"The provider sent a malformed answer: {str(error)[:120]}.")


def incomplete() -> ProviderFailed:
    """Return the failure for an answer without its end."""
    return ProviderFailed("The provider ended its answer before it was complete.")


def provider_error(body: Any) -> str:
    """Return the message of a provider's error, of at most 300 characters."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("detail") or error.get("code") or ""
    return str(error)[:300] if isinstance(error, str) else ""


def status_failure(status: int, body: bytes, retry_after_s: int) -> ProviderFailed:
    """Return the failure for the HTTP status of an answer.

    The provider's message reaches the caller only if it concerns the request.
    """
    match status:
        case 400 | 401 | 403 if _WRONG_TIME.search(body):
            return ProviderFailed(
                "The provider refused the signature because of its time: the clock of the egress "
                "worker is wrong.",
                code="credential_unavailable",
                status=503,
            )
        case 400 | 413 | 422:
            try:
                parsed = parse(body)
            except ValueError:
                parsed = {}
            error = parsed.get("error")
            long = isinstance(error, Mapping) and error.get("code") == "context_length_exceeded"
            return ProviderFailed(
                f"The provider refused the request: {provider_error(parsed) or 'no reason given'}",
                code="context_length_exceeded" if long else "provider_refused",
                status=413 if status == 413 else 400,
            )
        case 401 | 403:
            return _credential_refused()
        case 402:
            return ProviderFailed(
                "The provider requires a payment.", code="provider_overloaded", status=503
            )
        case 404:
            return ProviderFailed("The provider does not know the model or the path.")
        case 408 | 504:
            return ProviderFailed(
                "The provider did not answer in time.", code="provider_timeout", status=504
            )
        case 429:
            return ProviderFailed(
                "The provider limits its requests; try again later.",
                code="provider_rate_limited",
                status=429,
                retry_after_s=retry_after_s,
            )
        case 503 | 529:
            return ProviderFailed(
                "The provider is overloaded; try again later.",
                code="provider_overloaded",
                status=503,
                retry_after_s=retry_after_s,
            )
    return ProviderFailed(f"The provider answered with status {status}.")


def stated_failure(body: Any) -> ProviderFailed:
    """Return the failure that an answer with status 200, or an event of it, states."""
    error = body.get("error")
    kind = ""
    if isinstance(error, Mapping):
        kind = " ".join(
            str(error.get(name, ""))[:60] for name in ("type", "code", "status")
        ).lower()
    if _CREDENTIAL.search(kind):
        return _credential_refused()
    message = provider_error(body) or "It gave no reason."
    if "rate" in kind or "429" in kind or "exhausted" in kind:
        return ProviderFailed(
            f"The provider limits its requests: {message}",
            code="provider_rate_limited",
            status=429,
        )
    if "overloaded" in kind or "unavailable" in kind or "503" in kind:
        return ProviderFailed(
            f"The provider is overloaded: {message}", code="provider_overloaded", status=503
        )
    return ProviderFailed(f"The provider failed: {message}")


def _credential_refused() -> ProviderFailed:
    return ProviderFailed(
        "The provider refused the credential of this model; its owner must replace it.",
        code="credential_unavailable",
        status=503,
    )
