"""Interface of senders: they return once the receiver has accepted a batch, or raise."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Protocol

from governance.audit.streaming.destinations import Destination

CONNECT_S = 10.0
ANSWER_S = 30.0


class SendFailed(Exception):
    """Batch that was not accepted and will be sent again. `words` may be displayed.

    `retry_after` is the delay in seconds that the receiver requested, if any.
    """

    def __init__(self, words: str, *, retry_after: float | None = None) -> None:
        super().__init__(words)
        self.words = words
        self.retry_after = retry_after


class BatchRefused(SendFailed):
    """Batch whose content the receiver rejects."""


class Sender(Protocol):
    """Sender to one destination, used by one thread."""

    def send(self, lines: Sequence[bytes]) -> None:
        """Send lines without line breaks as one batch; return once all are accepted.

        Raises:
            SendFailed, BatchRefused: the receiver did not confirm all of them.
        """

    def close(self) -> None:
        """Close connections."""


def tls_context(destination: Destination) -> ssl.SSLContext:
    """Return a TLS context that checks certificates and host names.

    Raises:
        SendFailed: a certificate file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=destination.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if destination.certificate_file:
            context.load_cert_chain(destination.certificate_file)
    except (OSError, ValueError) as error:
        raise SendFailed(
            f"A certificate file cannot be used ({type(error).__name__}); see ca_file and "
            "certificate_file."
        ) from error
    return context


def failure_words(error: BaseException) -> str:
    """Return the reason that a connection failed, without sent or configured values."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or type(cause).__name__}"
        if isinstance(cause, TimeoutError):
            return "it did not answer in time"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
