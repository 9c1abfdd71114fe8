"""Contract of every sender: it returns once the receiver has accepted, or raises."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Protocol

from governance.audit.streaming.destinations import Destination

CONNECT_S = 10.0
ANSWER_S = 30.0


class SendFailed(Exception):
    """The receiver has not accepted; what was sent is sent again. `words` are fit to be shown.

    `retry_after` is when the receiver wants to be asked again, in seconds, if it said so.
    """

    def __init__(self, words: str, *, retry_after: float | None = None) -> None:
        super().__init__(words)
        self.words = words
        self.retry_after = retry_after


class BatchRefused(SendFailed):
    """The receiver answers, and will not have something that is in the batch."""


class Sender(Protocol):
    """One way to one destination, used by one thread."""

    def send(self, lines: Sequence[bytes]) -> None:
        """Send lines without their ends, as one batch; return once all are accepted.

        Raises:
            SendFailed, BatchRefused: not all are, or nothing says so.
        """

    def close(self) -> None:
        """Let go of connections."""


def tls_context(destination: Destination) -> ssl.SSLContext:
    """Certificates and host names are checked, always.

    Raises:
        SendFailed: a file of certificates cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=destination.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if destination.certificate_file:
            context.load_cert_chain(destination.certificate_file)
    except (OSError, ValueError) as error:
        raise SendFailed(
            f"A file of certificates cannot be used ({type(error).__name__}); see ca_file and "
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
