"""MACs on usage entries: only the web process and the controller can make one that counts.

Whoever can write to the broker could otherwise book any amount on any department. Workers do not
have the key either, so that a compromised worker invents no usage.
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
    """The entry carries no valid MAC: no process with the usage key wrote it."""


@functools.cache
def _keyed(secret: str) -> HMAC:
    """Return the MAC to copy for each entry: preparing the key costs more than the MAC."""
    key = HKDF(hashes.SHA256(), 32, None, _PURPOSE).derive(secret.encode())
    return HMAC(key, hashes.SHA256())


def usage_key_held() -> bool:
    """Return whether this process may write usage; compute workers leave it to the controller."""
    return bool(settings.USAGE_KEY)


def require_usage_key() -> None:
    """Refuse to start a process that must write or check usage and cannot.

    Raises:
        ImproperlyConfigured: `ASSAY_USAGE_KEY` is not set.
    """
    if not usage_key_held():
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
    """Return `body` behind its MAC: HMAC-SHA256 as 64 hexadecimal digits.

    Raises:
        ImproperlyConfigured: this process does not have the usage key.
    """
    return _mac(body.encode()) + body


def unseal(text: str | bytes) -> bytes:
    """Return the body of what `seal` returned.

    Raises:
        ForgedEntry: the MAC does not fit the body.
    """
    data = text.encode() if isinstance(text, str) else text
    mac, body = data[:_MAC_CHARACTERS], data[_MAC_CHARACTERS:]
    if not hmac.compare_digest(mac, _mac(body).encode()):
        raise ForgedEntry("No process with the usage key wrote it.")
    return body
