"""Interface between the engine of hosted models and the credentials of departments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from workers.engines.protocol import RequestRefused


class Credential(Protocol):
    """One secret that authenticates requests to one host."""

    async def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        """Return the headers that authenticate exactly this request.

        They are computed for every request, because a signature covers its body; a token is
        refreshed before it expires.

        Raises:
            RequestRefused: no valid token could be had (`credential_unavailable`, 503).
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
        """Return the credential called `name` of the department that owns the deployment, the
        model of the intake whose provider this worker must call, or the evaluation that it runs.

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
