"""Google service accounts: a signed statement is exchanged for an access token (RFC 7523)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from governance.credentials.secrets import GoogleSecret
from workers.clock import CLOCK
from workers.egress.kinds.tokens import Fetch, Token, Tokens, token_request

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# The longest life of a statement that Google accepts.
STATEMENT_S = 3600
_HINT = (
    "Check that the service account's key is still valid, and that the clock of the egress worker "
    "is right."
)


class GoogleCredential:
    """Implements `Credential` with an access token of the service account."""

    def __init__(self, secret: GoogleSecret, fetch: Fetch) -> None:
        self._secret = secret
        self._fetch = fetch
        pem = secret.private_key.get_secret_value().encode()
        self._key = cast(RSAPrivateKey, load_pem_private_key(pem, password=None))
        self._tokens = Tokens(self._request)

    async def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        return {"authorization": f"Bearer {await self._tokens.value()}"}

    async def _request(self) -> Token:
        form = {"grant_type": GRANT, "assertion": self.statement(int(CLOCK.now()))}
        return await token_request(self._fetch, self._secret.token_uri, form, hint=_HINT)

    def statement(self, now: int) -> str:
        """Return the signed statement (JWT) at `now`, in seconds since the epoch."""
        secret = self._secret
        header = {"alg": "RS256", "typ": "JWT", "kid": secret.private_key_id}
        claims = {
            "iss": secret.client_email,
            "scope": secret.scope,
            "aud": secret.token_uri,
            "iat": now,
            "exp": now + STATEMENT_S,
        }
        signed = f"{_part(header)}.{_part(claims)}"
        signature = self._key.sign(signed.encode(), PKCS1v15(), SHA256())
        return f"{signed}.{_base64url(signature)}"


def _part(content: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(content, separators=(",", ":")).encode())


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
