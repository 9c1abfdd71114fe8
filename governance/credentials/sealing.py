"""Seal secrets to the public key of the egress workers, and open them there. Does not use Django.

Each sealed value has an ephemeral X25519 key, so only the holder of the private key can open it:
neither the process that sealed it, nor a reader of the database. The associated data is the
secret's context: a value that was moved to another row, or whose row changed, does not open.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
FORMAT = b"\x01"
# A sealed value is as long as the next multiple, so that it does not reveal the secret's length.
PADDED_TO = 1024
SEALED_MAX = 32 * 1024
_PURPOSE = b"assay provider credential 1"
# Each value has a key of its own, so the nonce may be the same.
_NONCE = bytes(12)
_HEX = re.compile(r"[0-9a-f]{64}")


class NotOpened(Exception):
    """None of the keys opens the sealed value in this context."""


class Opener(Protocol):
    """Opens sealed values, with keys in memory or in a key management service."""

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return the secret.

        Raises:
            NotOpened: it was sealed to another key or in another context, or was changed.
        """


def secret_context(
    *, department: str, name: str, kind: str, hosts: Iterable[str], version: int
) -> bytes:
    """Return the associated data of a secret: canonical JSON of the fields that it is bound to."""
    bound = {
        "department": department,
        "hosts": sorted(hosts),
        "kind": kind,
        "name": name,
        "version": version,
    }
    return json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()


def key_from_text(text: str) -> bytes:
    """Return a key from 64 hexadecimal digits. Raises ValueError, without the text, for others."""
    if not _HEX.fullmatch(text):
        raise ValueError("it is not 64 lowercase hexadecimal digits")
    return bytes.fromhex(text)


def public_key_of(private: bytes) -> bytes:
    """Return the public key of a private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def fingerprint(public: bytes) -> str:
    """Return 16 hexadecimal digits that identify a public key."""
    return hashlib.sha256(_PURPOSE + public).hexdigest()[:16]


def seal(secret: bytes, *, public: bytes, context: bytes) -> bytes:
    """Return the sealed secret, which must not end with spaces.

    Raises:
        ValueError: the public key is not usable, or the secret is too long.
    """
    padded = secret.ljust(-(-len(secret) // PADDED_TO) * PADDED_TO)
    ephemeral = X25519PrivateKey.generate()
    own = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    sealed = FORMAT + own + _cipher(shared, own, public).encrypt(_NONCE, padded, context)
    if len(sealed) > SEALED_MAX:
        raise ValueError(f"a sealed secret has at most {SEALED_MAX:,} bytes")
    return sealed


def _cipher(shared: bytes, ephemeral: bytes, public: bytes) -> ChaCha20Poly1305:
    key = HKDF(hashes.SHA256(), KEY_BYTES, ephemeral + public, _PURPOSE).derive(shared)
    return ChaCha20Poly1305(key)


class KeyOpener:
    """Opens with private keys in memory: the current key and, during a rotation, a second one.

    Implements `Opener`.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = [X25519PrivateKey.from_private_bytes(key) for key in keys]

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return the secret. Raises NotOpened as `Opener` does."""
        ephemeral = sealed[1 : 1 + KEY_BYTES]
        if sealed[:1] != FORMAT or len(ephemeral) != KEY_BYTES or len(sealed) > SEALED_MAX:
            raise NotOpened("The sealed value has an unknown form.")
        for key in self._keys:
            public = key.public_key().public_bytes_raw()
            try:
                shared = key.exchange(X25519PublicKey.from_public_bytes(ephemeral))
                cipher = _cipher(shared, ephemeral, public)
                return cipher.decrypt(_NONCE, sealed[1 + KEY_BYTES :], context).rstrip(b" ")
            except (InvalidTag, ValueError):
                continue
        raise NotOpened(
            "The sealed value was made for another key or another credential, or was changed."
        )
