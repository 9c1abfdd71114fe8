"""Destinations of event streams, from `ASSAY_SIEM_STREAMS`. Knows no Django."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

DESTINATIONS_MAX = 8
NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
# Scheme → the port that it has when the URL names none.
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
    """One receiver. What may hold a secret, path and query of the URL too, is never shown.

    `begin` says where one that is new begins: with the log's first event, or with what comes now.
    With `personal_data` the boxes of events are opened for it; without, people are their ids.
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
        """Scheme, host and port: what may be shown."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def over_http(self) -> bool:
        return self.scheme in {"https", "http"}

    @property
    def encrypted(self) -> bool:
        return self.scheme in {"https", "syslog+tls"}

    def secret(self) -> str:
        """The token, read anew each time, so that one that was renewed is used.

        Raises:
            OSError, UnicodeDecodeError: its file cannot be read.
        """
        if self.token_file:
            return Path(self.token_file).read_text(encoding="ascii").strip()
        return self.token


def destinations_from(text: str, *, production: bool) -> tuple[Destination, ...]:
    """Read a JSON list of objects, each with `name`, `url` and what differs from the defaults.

    Raises:
        ValueError: what is wrong, in which destination; no value is repeated that may be a secret.
    """
    if not text.strip():
        return ()
    try:
        listed = json.loads(text)
    except ValueError:
        raise ValueError("it is not JSON") from None
    if not isinstance(listed, list) or not all(isinstance(given, dict) for given in listed):
        raise ValueError(
            'it is not a list of objects, such as [{"name": "soc", "url": "https://…"}]'
        )
    if len(listed) > DESTINATIONS_MAX:
        raise ValueError(f"it names {len(listed)} destinations; {DESTINATIONS_MAX} are the most")
    found = tuple(
        _destination(given, number, production) for number, given in enumerate(listed, start=1)
    )
    names = [one.name for one in found]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"the name {repeated.pop()!r} is given twice")
    return found


def _destination(given: dict[str, Any], number: int, production: bool) -> Destination:
    name = given.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"destination {number} has no name of 1 to 40 lower-case letters, digits and hyphens"
        )
    try:
        _check_types(given)
        made = Destination(
            begin=given.get("from", "start"),
            **{key: value for key, value in given.items() if key != "from"},
        )
        destination_checked(made, production=production)
    except ValueError as error:
        raise ValueError(f"destination {name!r}: {error}") from None
    return made


def destination_checked(made: Destination, *, production: bool) -> None:
    """Raises ValueError: what is wrong with it; no value is repeated that may be a secret."""
    _check_choices(made)
    _check_url(made, production)
    _check_credentials(made)


def _check_types(given: dict[str, Any]) -> None:
    if unknown := given.keys() - _TEXTS - _TRUTHS:
        known = ", ".join(sorted(_TEXTS | _TRUTHS))
        raise ValueError(f"{min(unknown)!r} is not known; what is: {known}")
    for key, value in given.items():
        wanted = str if key in _TEXTS else bool
        if not isinstance(value, wanted):
            raise ValueError(f"{key} must be a {'text' if wanted is str else 'truth value'}")
    if not given.get("url"):
        raise ValueError("it has no url")


def _check_choices(made: Destination) -> None:
    for name, value, choices in (
        ("format", made.format, FORMATS),
        ("auth", made.auth, tuple(AUTHORIZATIONS)),
        ("from", made.begin, BEGINNINGS),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be {' or '.join(choices)}")


def _check_url(made: Destination, production: bool) -> None:
    try:
        parts = urlsplit(made.url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("the url is malformed") from None
    if not made.url.isascii() or not made.url.isprintable() or " " in made.url:
        raise ValueError("the url holds what no URL holds")
    if parts.scheme not in PORTS:
        raise ValueError(f"the url must begin with one of {', '.join(f'{s}://' for s in PORTS)}")
    if not host or port == 0:
        raise ValueError("the url names no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the url holds credentials; put a token in token_file")
    if parts.scheme == "http" and production:
        raise ValueError("production streams over https, not http")
    if not made.over_http and _goes_beyond_host(parts):
        raise ValueError("a syslog url is syslog+tls://host:port, without anything after it")


def _goes_beyond_host(parts: SplitResult) -> bool:
    return bool(parts.path.strip("/") or parts.query or parts.fragment)


def _check_credentials(made: Destination) -> None:
    if made.token and made.token_file:
        raise ValueError("give token or token_file, not both")
    if not (made.token.isascii() and made.token.isprintable()):
        raise ValueError("the token holds what no header can hold")
    if (made.token or made.token_file) and not made.over_http:
        raise ValueError("syslog has no token; certificate_file shows who sends")
    if (made.gzip or made.auth == "splunk") and not made.over_http:
        raise ValueError("gzip and auth are for https")
    if (made.ca_file or made.certificate_file) and not made.encrypted:
        raise ValueError("ca_file and certificate_file are for https and syslog+tls")
