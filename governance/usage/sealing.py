"""MACs on usage entries: only the web process and the controller can create valid ones.

Otherwise anyone with write access to the broker could charge any amount to any department. Workers
do not have the key either, so that a compromised worker cannot forge usage.
"""

from __future__ import annotations

import functools
import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_PURPOSE = b"assay usage entry 1"
_MAC_CHARACTERS = 64


class ForgedEntry(ValueError):
    """Entry without a valid MAC: it was not written by a process with the usage key."""


@functools.cache
def _keyed(secret: str) -> HMAC:
    """Return the keyed MAC, to copy for each entry: deriving the key costs more than the MAC."""
    key = HKDF(hashes.SHA256(), 32, None, _PURPOSE).derive(secret.encode())
    return HMAC(key, hashes.SHA256())


def has_usage_key() -> bool:
    """Return whether this process may write usage; compute workers leave it to the controller."""
    return bool(settings.USAGE_KEY)


def require_usage_key() -> None:
    """Check at the start of a process that it can write and check usage.

    Raises:
        ImproperlyConfigured: `ASSAY_USAGE_KEY` is not set.
    """
    if not has_usage_key():
        raise ImproperlyConfigured(
            "ASSAY_USAGE_KEY is missing: the web process and the controller need the same secret "
            "of at least 32 characters in ASSAY_USAGE_KEY or ASSAY_USAGE_KEY_FILE."
        )


def _mac(body: bytes) -> str:
    require_usage_key()
    mac = _keyed(settings.USAGE_KEY).copy()
    mac.update(body)
    return mac.finalize().hex()


def seal(body: str) -> str:
    """Return the MAC (HMAC-SHA256 as 64 hexadecimal digits) followed by `body`.

    Raises:
        ImproperlyConfigured: this process does not have the usage key.
    """
    return _mac(body.encode()) + body


def unseal(text: str | bytes) -> bytes:
    """Return the body in the result of `seal`.

    Raises:
        ForgedEntry: the MAC does not match the body.
    """
    data = text.encode() if isinstance(text, str) else text
    mac, body = data[:_MAC_CHARACTERS], data[_MAC_CHARACTERS:]
    if not hmac.compare_digest(mac, _mac(body).encode()):
        raise ForgedEntry("It was not written by a process with the usage key.")
    return body
