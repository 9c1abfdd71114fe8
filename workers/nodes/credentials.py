"""Proofs of a node's identity: challenges, signatures, and tokens stored as HMACs.

A challenge contains its time and a MAC, so it need not be stored before it is answered. Its age is
measured only by the clock of the servers.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings

from governance.errors import NotAuthenticated
from governance.keys.tokens import ParsedToken, format_token, mint, parse_token, secret_hmac

CHALLENGE_S = 60
# Largest difference between the clocks of two web processes.
_SKEW_MS = 5_000


def challenge_make(name: str) -> str:
    """Return a challenge for a name, even if no node has it."""
    head = f"{int(time.time() * 1000)}.{secrets.token_hex(16)}"
    return f"{head}.{_challenge_mac(head, name, max(settings.KEY_PEPPERS))}"


def challenge_check(challenge: str, name: str) -> None:
    """Check that this installation made the challenge for this node in the last minute.

    Raises:
        NotAuthenticated: the challenge is wrong or too old.
    """
    head, _, mac = challenge.rpartition(".")
    valid = any(
        hmac.compare_digest(mac.encode(), _challenge_mac(head, name, version).encode())
        for version in settings.KEY_PEPPERS
    )
    if valid:
        age_ms = time.time() * 1000 - int(head.partition(".")[0])
        valid = -_SKEW_MS <= age_ms < CHALLENGE_S * 1000
    if not valid:
        raise NotAuthenticated(
            f"The challenge is not valid: it is wrong, or older than {CHALLENGE_S} s.",
            code="node_challenge_invalid",
            hint="Request a new one with POST /node/v1/challenge.",
        )


def signature_valid(public_key: str, signature: str, text: bytes) -> bool:
    """Return whether the signature (hexadecimal) of `text` is valid for the key."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), text)
    except (ValueError, InvalidSignature):
        return False
    return True


def challenge_sha256(challenge: str) -> str:
    """Return the digest that is stored of an answered challenge."""
    return hashlib.sha256(challenge.encode()).hexdigest()


def credential_mint() -> tuple[str, dict[str, Any]]:
    """Return a new token and the columns that store it."""
    public_id, secret = mint()
    newest = max(settings.KEY_PEPPERS)
    return format_token(public_id, secret), {
        "public_id": public_id,
        "secret_hmac": secret_hmac(secret, settings.KEY_PEPPERS[newest]),
        "pepper_version": newest,
    }


def credential_parse(token: str) -> ParsedToken | None:
    """Return the parts of a token; None if it is malformed."""
    try:
        return parse_token(token.strip())
    except ValueError:
        return None


def credential_matches(secret: str, expected_hmac: bytes | memoryview[int], version: int) -> bool:
    """Return whether the secret matches the stored HMAC `expected_hmac`."""
    pepper = settings.KEY_PEPPERS.get(version)
    if pepper is None:
        return False
    return hmac.compare_digest(secret_hmac(secret, pepper), bytes(expected_hmac))


def _challenge_mac(head: str, name: str, version: int) -> str:
    text = f"assay node challenge 1\n{name}\n{head}".encode()
    return hmac.digest(settings.KEY_PEPPERS[version], text, "sha256").hex()
