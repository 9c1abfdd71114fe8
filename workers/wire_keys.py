"""Keys of the wire: one secret of the installation, one for each node, and a key for each purpose.

A node has only the secret of its own realm, so that what it makes counts only as its own. Knows
neither Django nor torch.
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
# Keys of pairs, and of nodes, that one process keeps.
PAIRS_MAX = 1000


class Forged(Exception):
    """The message was not made by whom it must come from, or is not the next one."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Shared secrets of one gateway and one worker process: the cipher of requests' keys, and the
    secret that makes a worker's replies its own."""

    cipher: AESGCM
    replies: bytes


def exchange_possible(public_key: str) -> bool:
    """Return whether a secret can be shared with a public key (X25519, hexadecimal). With a point
    of low order every secret would be zero.
    """
    try:
        other = X25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        X25519PrivateKey.generate().exchange(other)
    except ValueError:
        return False
    return True


class WireKey:
    """Derive one key for each purpose from the secret of the installation, or of one node.

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
        """Return the secret of a node, from which this one cannot be found."""
        return self._derived(b"node " + realm.encode()).hex()

    def of(self, realm: str) -> WireKey:
        """Return the key of a node's workers; with an empty realm, this one."""
        if not realm:
            return self
        found = self._nodes.get(realm)
        if found is None:
            if len(self._nodes) >= PAIRS_MAX:
                self._nodes.clear()
            found = self._nodes[realm] = WireKey(self.node_secret(realm))
        return found

    def pair(self, own: X25519PrivateKey, other: bytes, gateway: bytes, worker: bytes) -> Pair:
        """Return what one gateway and one worker process share."""
        shared = own.exchange(X25519PublicKey.from_public_bytes(other))
        info = b"assay wire 2 pair" + gateway + worker
        made = HKDF(hashes.SHA256(), 2 * KEY_BYTES, self._pairs, info).derive(shared)
        return Pair(AESGCM(made[:KEY_BYTES]), made[KEY_BYTES:])

    def header_mac(self, header: bytes) -> bytes:
        mac = self._header.copy()
        mac.update(header)
        return mac.finalize()

    def bounce_mac(self, request_id: str, stream: str, *, given_back: bool = False) -> bytes:
        """Proof that a worker of the installation sends a request back unopened: it is sealed for
        others, or `given_back`, because the worker reads the queue no more."""
        said = [request_id, stream, *(["given back"] if given_back else [])]
        return hmac.digest(self._bounce, json.dumps(said).encode(), "sha256")

    def cancel_message(self, request_id: str) -> str:
        """The notice that a request is canceled."""
        return f"{request_id}:{self._cancel_mac(request_id)}"

    def canceled(self, message: str) -> str:
        """The request that `cancel_message` names.

        Raises:
            Forged: no gateway of this installation wrote it.
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
