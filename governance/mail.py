"""Sending one plain-text email through the mail server in the settings."""

from __future__ import annotations

import io
import smtplib
import socket
import time
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend

from governance.audit.streaming.sending import SendFailed, failure_words
from governance.reviews.reminders.channels import MailServer

# Limits for one read, and for the whole conversation (a multiple of the former).
TIMEOUT_S = 10
CONVERSATION_TIMEOUTS = 6
REPLIES_BYTES_MAX = 64 * 1024


class _Replies(io.RawIOBase):
    """Replies of a mail server, limited in total time and length: smtplib reads a multi-line reply
    to its end and limits only the time of each read."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._socket, self._deadline, self._read = connection, deadline, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(min(left, TIMEOUT_S))
        count = self._socket.recv_into(buffer)
        self._read += count
        if self._read > REPLIES_BYTES_MAX:
            raise OSError("its replies are too long")
        return count


class _Smtp(smtplib.SMTP):
    """SMTP connection that ends if the server sends too slowly or too much."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._deadline = time.monotonic() + CONVERSATION_TIMEOUTS * TIMEOUT_S
        super().__init__(*args, **options)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = io.BufferedReader(_Replies(self.sock, self._deadline))
        return super().getreply()


class _Smtps(_Smtp, smtplib.SMTP_SSL):
    """The same connection over TLS from the first byte."""


class _Backend(EmailBackend):
    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return _Smtps if self.use_ssl else _Smtp


def mail_send(server: MailServer, *, to: str, subject: str, text: str, message_id: str) -> None:
    """Send one email. `message_id` is the part of the message's ID before the sender's domain.

    Raises:
        SendFailed: the server did not accept it; the error contains neither address nor text.
    """
    domain = server.sender.rpartition("@")[2].strip("> ")
    backend = _Backend(
        host=server.host,
        port=server.port,
        username=server.username,
        password=server.password,
        use_tls=server.scheme == "smtp+tls",
        use_ssl=server.scheme == "smtps",
        timeout=TIMEOUT_S,
    )
    message = EmailMessage(
        subject=subject,
        body=text,
        from_email=server.sender,
        to=[to],
        headers={
            "Auto-Submitted": "auto-generated",
            "Message-ID": f"<{message_id}@{domain}>",
        },
        connection=backend,
    )
    try:
        message.send()
    except smtplib.SMTPResponseException as error:
        raise SendFailed(f"{server.address} answers {error.smtp_code}.") from None
    except smtplib.SMTPRecipientsRefused:
        raise SendFailed(f"{server.address} does not accept mail for that person.") from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise SendFailed(f"{server.address}: {failure_words(error)}.") from None
