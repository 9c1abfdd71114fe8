"""AWS Signature Version 4, computed by botocore without any request of its own."""

from __future__ import annotations

from collections.abc import Mapping

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as AccessKey

from governance.credentials.secrets import AwsSecret

_SIGNED = ("Authorization", "X-Amz-Date")


class AwsCredential:
    """Implements `Credential` with a signature of method, URL and body."""

    def __init__(self, secret: AwsSecret) -> None:
        key = AccessKey(secret.access_key_id, secret.secret_access_key.get_secret_value())
        self._signer = SigV4Auth(key, secret.service, secret.region)

    async def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        request = AWSRequest(method=method, url=url, data=body)
        self._signer.add_auth(request)
        return {name.lower(): request.headers[name] for name in _SIGNED}
