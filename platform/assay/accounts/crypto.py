"""Encryption at rest of the secrets of second factors.

The keys are derived from `ASSAY_KEY_PEPPER` and its later versions for this purpose alone. The
newest key encrypts and all of them decrypt, so existing second factors work after a new pepper.
"""

from __future__ import annotations

import base64
import functools

from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

PURPOSE = b"assay second factors v1"


@functools.lru_cache(maxsize=4)
def _box(peppers: tuple[bytes, ...]) -> MultiFernet:
    keys = [HKDF(algorithm=SHA256(), length=32, salt=None, info=PURPOSE).derive(p) for p in peppers]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])


def _current() -> MultiFernet:
    return _box(tuple(pepper for _, pepper in sorted(settings.KEY_PEPPERS.items(), reverse=True)))


def encrypt(text: str) -> str:
    """Encrypt `text` with the newest key (Fernet: AES-128-CBC and HMAC-SHA256)."""
    return _current().encrypt(text.encode()).decode()


def decrypt(text: str) -> str:
    """Decrypt `text`. Raises cryptography.fernet.InvalidToken if none of our keys encrypted it."""
    return _current().decrypt(text.encode()).decode()
