"""A static header, such as `Authorization: Bearer …` or `api-key: …`."""

from __future__ import annotations

from collections.abc import Mapping

from governance.credentials.secrets import HeaderSecret


class HeaderCredential:
    """Implements `Credential` with the same header for each request."""

    def __init__(self, secret: HeaderSecret) -> None:
        self._headers = {secret.header: secret.value.get_secret_value()}

    async def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        return self._headers
