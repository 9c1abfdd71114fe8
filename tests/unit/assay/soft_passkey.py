"""A passkey in software: what a browser and its authenticator do, with real keys and signatures."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from fido2 import cbor

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass
class SoftPasskey:
    """One discoverable ES256 credential; `origin` is the page that the browser says it is on."""

    origin: str = "https://testserver"
    verifies: bool = True
    algorithm: int = -7
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    id: bytes = field(default_factory=lambda: os.urandom(32))
    user: str = ""

    def _client_data(self, kind: str, challenge: str) -> bytes:
        said = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps(said).encode()

    def _flags(self, more: int = 0) -> int:
        return PRESENT | (VERIFIED if self.verifies else 0) | more

    def _answer(self, response: dict[str, Any]) -> str:
        return json.dumps(
            {
                "id": b64(self.id),
                "rawId": b64(self.id),
                "type": "public-key",
                "clientExtensionResults": {"credProps": {"rk": True}},
                "response": response,
            }
        )

    def create(self, options: dict[str, Any]) -> str:
        """`navigator.credentials.create`, as JSON."""
        asked = options["publicKey"]
        self.user = asked["user"]["id"]
        numbers = self.key.public_key().public_numbers()
        public = {
            1: 2,
            3: self.algorithm,
            -1: 1,
            -2: numbers.x.to_bytes(32, "big"),
            -3: numbers.y.to_bytes(32, "big"),
        }
        data = (
            sha256(asked["rp"]["id"].encode()).digest()
            + bytes([self._flags(ATTESTED)])
            + bytes(4)
            + bytes(16)
            + len(self.id).to_bytes(2, "big")
            + self.id
            + cbor.encode(public)
        )
        attestation = cbor.encode({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client_data("webauthn.create", asked["challenge"])
        return self._answer({"clientDataJSON": b64(client), "attestationObject": b64(attestation)})

    def get(self, options: dict[str, Any]) -> str:
        """`navigator.credentials.get`, as JSON."""
        asked = options["publicKey"]
        data = sha256(asked["rpId"].encode()).digest() + bytes([self._flags()]) + bytes(4)
        client = self._client_data("webauthn.get", asked["challenge"])
        signature = self.key.sign(data + sha256(client).digest(), ec.ECDSA(SHA256()))
        return self._answer(
            {
                "clientDataJSON": b64(client),
                "authenticatorData": b64(data),
                "signature": b64(signature),
                "userHandle": self.user,
            }
        )
