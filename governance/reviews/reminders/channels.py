"""Channels of notices from the settings: a mail server and a webhook. Imports no Django."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from governance.audit.streaming.destinations import Destination, destination_checked

# Scheme → default port.
MAIL_PORTS = {"smtp": 25, "smtp+tls": 587, "smtps": 465}
SECRET_MIN = 32


@dataclass(frozen=True, slots=True)
class MailServer:
    """A server that accepts mail. `smtps` uses TLS from the start, `smtp+tls` STARTTLS."""

    scheme: str
    host: str
    port: int
    sender: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        """Return the address without credentials."""
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of signed POST requests."""

    destination: Destination
    secret: str = field(repr=False)


def mail_server_from(url: str, *, sender: str) -> MailServer | None:
    """Parse `smtps://user:password@host:port`; None if the URL is empty.

    Raises:
        ValueError: the URL is wrong. The message repeats no value that may be a secret.
    """
    if not url:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("it is malformed") from None
    if parts.scheme not in MAIL_PORTS:
        raise ValueError(f"it must begin with one of {', '.join(f'{s}://' for s in MAIL_PORTS)}")
    if not host or port == 0 or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("it must be scheme://user:password@host:port, without a path or query")
    if parts.username and parts.scheme == "smtp":
        raise ValueError("a password is not sent unencrypted; use smtps or smtp+tls")
    if "@" not in sender or not sender.isprintable():
        raise ValueError("ASSAY_EMAIL_FROM is not an e-mail address")
    return MailServer(
        scheme=parts.scheme,
        host=host,
        port=port or MAIL_PORTS[parts.scheme],
        sender=sender,
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )


def webhook_from(url: str, *, secret: str, ca_file: str, production: bool) -> Webhook | None:
    """Parse the webhook's address and signing secret; None if there is no address.

    Raises:
        ValueError: a value is wrong. The message repeats no value that may be a secret.
    """
    if not url:
        return None
    destination = Destination(name="review-webhook", url=url, ca_file=ca_file)
    if not destination.over_http:
        raise ValueError("it must begin with https://")
    destination_checked(destination, production=production)
    if len(secret) < SECRET_MIN:
        raise ValueError(f"its secret needs at least {SECRET_MIN} characters")
    return Webhook(destination, secret)
