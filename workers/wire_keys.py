"""Wire keys: a secret of the installation, one for each node, and a derived key for each purpose.

A node has only the secret of its own realm, so it can make messages only as itself. Uses neither
Django nor torch.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
# Most keys of pairs, and of nodes, that one process keeps.
PAIRS_MAX = 1000


class Forged(Exception):
    """The message is not from its required sender, or is not the next one."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Shared secrets of a gateway and a worker process: the cipher for the keys of requests, and
    the secret for the worker's replies."""

    cipher: AESGCM
    replies: bytes


def exchange_possible(public_key: str) -> bool:
    """Return whether a public key (X25519, hexadecimal) is usable for a key exchange. With a point
    of low order, every shared secret would be zero.
    """
    try:
        other = X25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        X25519PrivateKey.generate().exchange(other)
    except ValueError:
        return False
    return True


class WireKey:
    """Derives a key for each purpose from the secret of the installation, or of one node.

    Raises:
        ValueError: the secret is empty.
    """

    def __init__(self, secret: str) -> None:
        if not secret:
            raise ValueError(
                "ASSAY_WIRE_KEY is missing: web processes and engine workers need the same secret "
                "of at least 32 characters in ASSAY_WIRE_KEY or ASSAY_WIRE_KEY_FILE."
            )
        self._secret = secret.encode()
        self._cancel = self._derived(b"cancel")
        self._bounce = self._derived(b"not addressed")
        # Copied for each request: preparing the key costs more than the MAC.
        self._header = HMAC(self._derived(b"header"), hashes.SHA256())
        self._pairs = self._derived(b"pairs")
        self._nodes: dict[str, WireKey] = {}

    def node_secret(self, realm: str) -> str:
        """Return the secret of a node, from which this one cannot be derived."""
        return self._derived(b"node " + realm.encode()).hex()

    def of(self, realm: str) -> WireKey:
        """Return the key of a node's workers; for an empty realm, this one."""
        if not realm:
            return self
        key = self._nodes.get(realm)
        if key is None:
            if len(self._nodes) >= PAIRS_MAX:
                self._nodes.clear()
            key = self._nodes[realm] = WireKey(self.node_secret(realm))
        return key

    def pair(self, own: X25519PrivateKey, other: bytes, gateway: bytes, worker: bytes) -> Pair:
        """Return the shared secrets of a gateway and a worker process."""
        shared = own.exchange(X25519PublicKey.from_public_bytes(other))
        info = b"assay wire 2 pair" + gateway + worker
        secrets = HKDF(hashes.SHA256(), 2 * KEY_BYTES, self._pairs, info).derive(shared)
        return Pair(AESGCM(secrets[:KEY_BYTES]), secrets[KEY_BYTES:])

    def header_mac(self, header: bytes) -> bytes:
        mac = self._header.copy()
        mac.update(header)
        return mac.finalize()

    def bounce_mac(self, request_id: str, stream: str, *, given_back: bool = False) -> bytes:
        """Return the proof that a worker of the installation returns a request unopened: it is
        sealed for others, or `given_back` because the worker no longer reads the queue."""
        parts = [request_id, stream, *(["given back"] if given_back else [])]
        return hmac.digest(self._bounce, json.dumps(parts).encode(), "sha256")

    def cancel_message(self, request_id: str) -> str:
        """Return the notice that cancels a request."""
        return f"{request_id}:{self._cancel_mac(request_id)}"

    def canceled(self, message: str) -> str:
        """Return the request of a notice that `cancel_message` made.

        Raises:
            Forged: the notice is not from a gateway of this installation.
        """
        request_id, _, mac = message.rpartition(":")
        if not hmac.compare_digest(mac.encode(), self._cancel_mac(request_id).encode()):
            raise Forged("The cancellation carries no valid MAC.")
        return request_id

    def _cancel_mac(self, request_id: str) -> str:
        return hmac.digest(self._cancel, request_id.encode(), "sha256").hex()

    def _derived(self, purpose: bytes) -> bytes:
        kdf = HKDF(hashes.SHA256(), KEY_BYTES, None, b"assay wire 1 " + purpose)
        return kdf.derive(self._secret)
