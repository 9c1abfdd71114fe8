"""OAuth 2.0 client credentials (RFC 6749, section 4.4), as of Microsoft Entra."""

from __future__ import annotations

from collections.abc import Mapping

from governance.credentials.secrets import OAuth2Secret
from workers.egress.kinds.tokens import Fetch, Token, Tokens, token_request

_HINT = "Check the client's ID and secret, which may have expired, and rotate the credential."


class OAuth2Credential:
    """Implements `Credential` with an access token of the client."""

    def __init__(self, secret: OAuth2Secret, fetch: Fetch) -> None:
        self._secret = secret
        self._fetch = fetch
        self._tokens = Tokens(self._request)

    async def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        return {"authorization": f"Bearer {await self._tokens.value()}"}

    async def _request(self) -> Token:
        secret = self._secret
        form = {
            "grant_type": "client_credentials",
            "client_id": secret.client_id,
            "client_secret": secret.client_secret.get_secret_value(),
        }
        if secret.scope:
            form["scope"] = secret.scope
        return await token_request(self._fetch, secret.token_url, form, hint=_HINT)
