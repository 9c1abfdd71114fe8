"""Destinations of event streams, from `ASSAY_SIEM_STREAMS`. Does not import Django."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

DESTINATIONS_MAX = 8
NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
# Scheme → its default port.
PORTS = {"https": 443, "http": 80, "syslog+tls": 6514, "syslog+tcp": 601}
FORMATS = ("ocsf", "cef")
AUTHORIZATIONS = {"bearer": "Bearer", "splunk": "Splunk"}
BEGINNINGS = ("start", "now")
_TEXTS = frozenset(
    {"name", "url", "format", "auth", "token", "token_file", "from", "ca_file", "certificate_file"}
)
_TRUTHS = frozenset({"gzip", "personal_data"})


@dataclass(frozen=True, slots=True)
class Destination:
    """A receiver. Values that may contain a secret, such as the URL's path, are never displayed.

    `begin` is the start of a new stream: the log's first event, or the next one. With
    `personal_data` it gets the content of events' boxes; otherwise it gets only people's IDs.
    """

    name: str
    url: str = field(repr=False)
    format: str = "ocsf"
    auth: str = "bearer"
    token: str = field(default="", repr=False)
    token_file: str = ""
    gzip: bool = False
    personal_data: bool = False
    begin: str = "start"
    ca_file: str = ""
    certificate_file: str = ""

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or PORTS[self.scheme]

    @property
    def address(self) -> str:
        """Scheme, host and port: the parts of the URL that may be displayed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def over_http(self) -> bool:
        return self.scheme in {"https", "http"}

    @property
    def encrypted(self) -> bool:
        return self.scheme in {"https", "syslog+tls"}

    def secret(self) -> str:
        """Return the token; its file is read each time, so that a renewed token takes effect.

        Raises:
            OSError, UnicodeDecodeError: its file cannot be read.
        """
        if self.token_file:
            return Path(self.token_file).read_text(encoding="ascii").strip()
        return self.token


def destinations_from(text: str, *, production: bool) -> tuple[Destination, ...]:
    """Read a JSON list of objects, each with `name`, `url` and any nondefault values.

    Raises:
        ValueError: names the destination and its error, without values that may be secret.
    """
    if not text.strip():
        return ()
    try:
        items = json.loads(text)
    except ValueError:
        raise ValueError("it is not JSON") from None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(
            'it is not a list of objects, such as [{"name": "soc", "url": "https://…"}]'
        )
    if len(items) > DESTINATIONS_MAX:
        raise ValueError(f"it has {len(items)} destinations; the maximum is {DESTINATIONS_MAX}")
    destinations = tuple(
        _destination(item, number, production) for number, item in enumerate(items, start=1)
    )
    names = [destination.name for destination in destinations]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"the name {repeated.pop()!r} is used twice")
    return destinations


def _destination(item: dict[str, Any], number: int, production: bool) -> Destination:
    name = item.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"destination {number} has no name of 1 to 40 lowercase letters, digits and hyphens"
        )
    try:
        _check_types(item)
        destination = Destination(
            begin=item.get("from", "start"),
            **{key: value for key, value in item.items() if key != "from"},
        )
        destination_checked(destination, production=production)
    except ValueError as error:
        raise ValueError(f"destination {name!r}: {error}") from None
    return destination


def destination_checked(destination: Destination, *, production: bool) -> None:
    """Check a destination. Raise ValueError with its error, without values that may be secret."""
    _check_choices(destination)
    _check_url(destination, production)
    _check_credentials(destination)


def _check_types(item: dict[str, Any]) -> None:
    if unknown := item.keys() - _TEXTS - _TRUTHS:
        names = ", ".join(sorted(_TEXTS | _TRUTHS))
        raise ValueError(f"{min(unknown)!r} is an unknown key; known keys: {names}")
    for key, value in item.items():
        expected = str if key in _TEXTS else bool
        if not isinstance(value, expected):
            raise ValueError(f"{key} must be {'a text' if expected is str else 'true or false'}")
    if not item.get("url"):
        raise ValueError("it has no url")


def _check_choices(destination: Destination) -> None:
    for name, value, choices in (
        ("format", destination.format, FORMATS),
        ("auth", destination.auth, tuple(AUTHORIZATIONS)),
        ("from", destination.begin, BEGINNINGS),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be {' or '.join(choices)}")


def _check_url(destination: Destination, production: bool) -> None:
    try:
        parts = urlsplit(destination.url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("the url is malformed") from None
    if not destination.url.isascii() or not destination.url.isprintable() or " " in destination.url:
        raise ValueError("the url contains an invalid character")
    if parts.scheme not in PORTS:
        raise ValueError(f"the url must begin with one of {', '.join(f'{s}://' for s in PORTS)}")
    if not host or port == 0:
        raise ValueError("the url names no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the url contains credentials; put a token in token_file")
    if parts.scheme == "http" and production:
        raise ValueError("production streams over https, not http")
    if not destination.over_http and _goes_beyond_host(parts):
        raise ValueError("a syslog url is syslog+tls://host:port, without anything after it")


def _goes_beyond_host(parts: SplitResult) -> bool:
    return bool(parts.path.strip("/") or parts.query or parts.fragment)


def _check_credentials(destination: Destination) -> None:
    if destination.token and destination.token_file:
        raise ValueError("give token or token_file, not both")
    if not (destination.token.isascii() and destination.token.isprintable()):
        raise ValueError("the token contains a character that headers do not allow")
    if (destination.token or destination.token_file) and not destination.over_http:
        raise ValueError("syslog has no token; use certificate_file to identify the sender")
    if (destination.gzip or destination.auth == "splunk") and not destination.over_http:
        raise ValueError("gzip and auth are for https")
    if (destination.ca_file or destination.certificate_file) and not destination.encrypted:
        raise ValueError("ca_file and certificate_file are for https and syslog+tls")
