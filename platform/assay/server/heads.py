"""Limits on each part of a request's head, checked before anything parses it.

Not all parsers of headers are linear: the time of Python's for `Content-Type` grows with the square
of the length, and of the number of parameters. Within these limits every parser is fast on any
input.
"""

from __future__ import annotations

from dataclasses import dataclass

from assay.gateway.http.asgi import Scope
from assay.gateway.http.errors import WrongContentType
from governance.errors import DomainError, InvalidInput
from registry.catalog.header_values import header_value


class HeaderTooLarge(DomainError):
    """A header is over its limit (431)."""

    code = "header_too_large"
    status = 431
    title = "Request header too large"


class AddressTooLong(DomainError):
    """The path and query are over the limit (414)."""

    code = "address_too_long"
    status = 414
    title = "Address too long"


@dataclass(frozen=True, slots=True)
class Bound:
    """Maximum bytes of a header, with all lines of that name; and for lists and parameters the
    maximum number of commas and semicolons."""

    size: int
    marks: int | None = None


# Path and query.
TARGET_MAX = 8 * 1024
# Limit of a header that is not listed; Assay does not read it.
OTHER = Bound(8 * 1024)
# Large enough for the cookies of other applications on the same host.
COOKIE = Bound(16 * 1024)
BOUNDS: dict[bytes, Bound] = {
    b"host": Bound(300),
    b"content-type": Bound(1024, marks=8),
    b"content-length": Bound(20),
    b"content-encoding": Bound(100, marks=8),
    b"transfer-encoding": Bound(100, marks=8),
    b"expect": Bound(100),
    b"connection": Bound(300, marks=16),
    b"upgrade": Bound(300, marks=16),
    b"accept": Bound(2048, marks=64),
    b"accept-encoding": Bound(512, marks=32),
    b"accept-language": Bound(1024, marks=64),
    b"authorization": Bound(2048),
    b"x-api-key": Bound(256),
    b"cookie": COOKIE,
    b"x-csrftoken": Bound(128),
    b"origin": Bound(512),
    b"range": Bound(128, marks=8),
    b"if-range": Bound(256),
    b"if-match": Bound(1024, marks=16),
    b"if-none-match": Bound(1024, marks=16),
    b"if-modified-since": Bound(100),
    b"if-unmodified-since": Bound(100),
    b"forwarded": Bound(2048, marks=128),
    b"x-forwarded-for": Bound(2048, marks=64),
    b"x-forwarded-host": Bound(512, marks=16),
    b"x-forwarded-proto": Bound(128, marks=16),
    b"x-request-id": Bound(256),
    b"idempotency-key": Bound(256),
    b"assay-data-classification": Bound(128),
    b"traceparent": Bound(128),
    b"tracestate": Bound(1024, marks=64),
    b"upload-offset": Bound(20),
    b"upload-length": Bound(20),
    b"upload-checksum": Bound(256),
    b"upload-metadata": Bound(4096, marks=16),
    b"tus-resumable": Bound(20),
}
_UTF_8 = frozenset({"", "utf-8", "utf8", "us-ascii"})


def check_head(scope: Scope) -> None:
    """Raise unless every part of the request's head is within its limit.

    Raises:
        AddressTooLong: path and query together are over 8 KiB.
        HeaderTooLarge: a header is too long, or lists too much.
        InvalidInput: the content type cannot be read.
        WrongContentType: the body is in another encoding than UTF-8.
    """
    if len(scope["raw_path"]) + len(scope["query_string"]) > TARGET_MAX:
        raise AddressTooLong(f"Path and query have more than {TARGET_MAX:,} bytes together.")
    sizes: dict[bytes, int] = {}
    for name, value in scope["headers"]:
        bound = BOUNDS.get(name, OTHER)
        # Lines with the same name are joined to one value.
        size = sizes[name] = sizes.get(name, 0) + len(value) + (name in sizes)
        if size > bound.size:
            raise HeaderTooLarge(f"{_title(name)} has more than {bound.size:,} bytes.")
        if bound.marks is not None and _marks(value) > bound.marks:
            raise HeaderTooLarge(f"{_title(name)} lists too many values.")
        if name == b"content-type" and b";" in value:
            _check_content_type(value)


def _marks(value: bytes) -> int:
    return value.count(b",") + value.count(b";")


def _title(name: bytes) -> str:
    # Refusal pages are cached by their text, so a client must not be able to choose it.
    return f"The header {name.decode().title()}" if name in BOUNDS else "A header"


def _check_content_type(value: bytes) -> None:
    """Raise for types that Django would parse differently or at great cost: parameters split or
    with their own charset (RFC 2231), and Python codecs that are not used for bodies.
    """
    content_type = header_value(value.decode("latin-1"))
    if content_type is None or any("*" in name for name in content_type.parameters):
        raise InvalidInput("The Content-Type cannot be read.")
    if content_type.parameters.get("charset", "").lower() not in _UTF_8:
        raise WrongContentType("Bodies must be UTF-8; this one declares another charset.")
