"""Interface between the engine of hosted models and the credentials of departments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from workers.engines.protocol import RequestRefused


class Credential(Protocol):
    """One secret that authenticates requests to one host."""

    async def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        """Return the headers that authenticate this request only.

        Call it for every request: a signature covers the body, and a token expires.

        Raises:
            RequestRefused: no valid token is available (`credential_unavailable`, 503).
        """


class Credentials(Protocol):
    """The credentials that this process can open."""

    async def get(
        self,
        name: str,
        *,
        host: str,
        deployment_id: int = 0,
        intake_id: int = 0,
        job_id: str = "",
    ) -> Credential:
        """Return the credential called `name` of one department: the owner of the deployment, of
        the intake's model, or of the evaluation. The worker must call the provider for the intake,
        or run the evaluation.

        Raises:
            RequestRefused: it is missing, revoked or not permitted for the host
                (`credential_unavailable`, 503).
        """


def credential_unavailable(message: str) -> RequestRefused:
    """Return the error of a request that cannot be authenticated. The message names no secret."""
    return RequestRefused(message, code="credential_unavailable", status=503)


class NoCredentials:
    """Credentials of a process without a key to open any; see `Credentials`."""

    async def get(
        self,
        name: str,
        *,
        host: str,
        deployment_id: int = 0,
        intake_id: int = 0,
        job_id: str = "",
    ) -> Credential:
        """Raise RequestRefused."""
        raise credential_unavailable(
            f"This worker cannot open the credential {name}: it has no ASSAY_EGRESS_KEY."
        )
