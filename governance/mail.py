"""Sending one plain-text mail through the mail server that the settings name."""

from __future__ import annotations

import smtplib

from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend

from governance.audit.streaming.sending import SendFailed, failure_words
from governance.reviews.reminders.channels import MailServer

TIMEOUT_S = 10


def mail_send(server: MailServer, *, to: str, subject: str, text: str, message_id: str) -> None:
    """Hand one mail over. `message_id` is the part before the sender's domain.

    Raises:
        SendFailed: the server did not take it; the words hold neither address nor text.
    """
    domain = server.sender.rpartition("@")[2].strip("> ")
    backend = EmailBackend(
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
        raise SendFailed(f"{server.address} does not take mail for that person.") from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise SendFailed(f"{server.address}: {failure_words(error)}.") from None
