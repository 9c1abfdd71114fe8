"""The text of a credential: `assay_<id>_<secret>_<checksum>`. Does not import Django.

The ID finds the row and may be displayed; the secret is 256 random bits. The checksum (CRC-32 of
the text before it) distinguishes typos from invalid keys and lets leak scanners recognize keys
reliably. All three are base 62, so that a double click selects the whole token. After GitHub's
token format:
https://github.blog/engineering/behind-githubs-new-authentication-token-formats/
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field

PREFIX = "assay"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH = 12
# 43 digits of base 62 hold 256 bits.
SECRET_LENGTH = 43
CHECKSUM_LENGTH = 6
PATTERN = re.compile(
    rf"{PREFIX}_(?P<id>[0-9A-Za-z]{{{ID_LENGTH}}})_(?P<secret>[0-9A-Za-z]{{{SECRET_LENGTH}}})"
    rf"_(?P<checksum>[0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)
MAX_LENGTH = 80
# Longer texts are not parsed.
SENT_MAX = 256


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """A token with the right format and checksum; it may still be unknown, revoked or expired."""

    public_id: str
    secret: str = field(repr=False)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def mint() -> tuple[str, str]:
    """Return a new (public ID, secret) from the operating system's random source."""
    public_id = "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
    return public_id, _base62(secrets.randbits(256), SECRET_LENGTH)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), CHECKSUM_LENGTH)


def format_token(public_id: str, secret: str) -> str:
    """Return the full token, which is shown once."""
    body = f"{PREFIX}_{public_id}_{secret}"
    return f"{body}_{_checksum(body)}"


def parse_token(text: str) -> ParsedToken:
    """Return the parts of a token.

    Raises:
        ValueError: it is not a token, or mistyped; the message never contains the text.
    """
    if len(text) > MAX_LENGTH or (match := PATTERN.fullmatch(text)) is None:
        raise ValueError(
            f"it does not have the form {PREFIX}_<id>_<secret>_<checksum>; copy the whole key"
        )
    body, _, checksum = text.rpartition("_")
    if checksum != _checksum(body):
        raise ValueError("its checksum is wrong: a character was mistyped or lost")
    return ParsedToken(public_id=match["id"], secret=match["secret"])


def secret_hmac(secret: str, pepper: bytes) -> bytes:
    """Return the HMAC-SHA256 of the secret under the pepper, 32 bytes.

    The secret has 256 random bits, so a slow hash is not needed and would invite denial of service.
    """
    return hmac.digest(pepper, secret.encode(), "sha256")
