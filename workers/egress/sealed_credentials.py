"""Credentials of departments in an egress worker, which opens them and keeps them in memory.

The worker reads the row of a credential from the control plane. A reading is valid for `FRESH_S`
seconds, so a rotation or revocation takes effect within 5 seconds. While the control plane does not
answer, the last reading stays valid as long as a deployment may serve without confirmation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import ValidationError

from governance.credentials.sealing import NotOpened, Opener, secret_context
from governance.credentials.secrets import (
    SECRETS,
    AwsSecret,
    GoogleSecret,
    HeaderSecret,
    OAuth2Secret,
    Secret,
)
from governance.errors import DomainError
from workers.control.protocol import SealedCredential
from workers.egress.credentials import Credential, credential_unavailable
from workers.egress.kinds.aws import AwsCredential
from workers.egress.kinds.google import GoogleCredential
from workers.egress.kinds.header import HeaderCredential
from workers.egress.kinds.oauth2 import OAuth2Credential
from workers.egress.kinds.tokens import Fetch
from workers.engines.protocol import RequestRefused

logger = logging.getLogger(__name__)
FRESH_S = 4.0
# Time limit for one reading.
READ_S = 3.0
# Interval of further attempts while the control plane does not answer.
RETRY_S = 1.0
ENTRIES_MAX = 1_000
_Key = tuple[int, int, str, str, str]


class CredentialControl(Protocol):
    """The part of `EngineControl` that reads credentials."""

    def credential(
        self,
        *,
        worker: str,
        deployment_id: int,
        name: str,
        host: str,
        intake_id: int = 0,
        job_id: str = "",
    ) -> SealedCredential:
        """See `EngineControl`."""

    def drop_broken(self) -> None:
        """See `EngineControl`."""

    def close(self) -> None:
        """See `EngineControl`."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """An opened credential, confirmed at `read_at` and read again after `fresh_until`."""

    credential: Credential
    read_at: float
    fresh_until: float


class SealedCredentials:
    """Implements `Credentials`. One event loop uses it.

    `outage_s` is the time for which a credential serves while the control plane does not answer.
    """

    def __init__(
        self,
        control: CredentialControl,
        *,
        worker: str,
        opener: Opener,
        fetch: Fetch,
        outage_s: float,
    ) -> None:
        self._control = control
        self._worker = worker
        self._opener = opener
        self._fetch = fetch
        self._outage_s = outage_s
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._reads: dict[_Key, asyncio.Task[_Entry]] = {}
        # Deployments share an opened credential, and so its token, while its row is unchanged.
        self._opened: OrderedDict[int, tuple[SealedCredential, Credential]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "assay-credentials")

    async def get(
        self,
        name: str,
        *,
        host: str,
        deployment_id: int = 0,
        intake_id: int = 0,
        job_id: str = "",
    ) -> Credential:
        """Return the credential, as `Credentials` states."""
        key = (deployment_id, intake_id, job_id, name, host)
        entry = self._entries.get(key)
        if entry is None or time.monotonic() >= entry.fresh_until:
            read = self._reads.get(key)
            if read is None:
                read = asyncio.get_running_loop().create_task(self._confirm(key))
                self._reads[key] = read
                read.add_done_callback(lambda task: self._ended(key, task))
            # A canceled request does not end the reading that others wait for.
            entry = await asyncio.shield(read)
        return entry.credential

    def close(self) -> None:
        """Close the connections of the thread, and end it."""
        self._thread.submit(self._control.close)
        self._thread.shutdown()

    def _ended(self, key: _Key, read: asyncio.Task[_Entry]) -> None:
        self._reads.pop(key, None)
        if not read.cancelled():
            # Every request that waited may have been canceled.
            read.exception()

    async def _confirm(self, key: _Key) -> _Entry:
        """Read a credential, and open it if it is new; return its entry."""
        previous, began = self._entries.get(key), time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(READ_S):
                sealed = await loop.run_in_executor(self._thread, self._read, key)
            entry = _Entry(self._current(sealed, host=key[4]), began, began + FRESH_S)
        except (DomainError, RequestRefused) as error:
            self._entries.pop(key, None)
            raise credential_unavailable(str(error)) from None
        except Exception as error:
            now = time.monotonic()
            if previous is None or now - previous.read_at >= self._outage_s:
                self._entries.pop(key, None)
                logger.warning("Credentials cannot be read: %s", type(error).__name__)
                raise credential_unavailable(
                    f"The credential {key[3]} cannot be confirmed: the control plane does not "
                    "answer."
                ) from None
            entry = replace(previous, fresh_until=now + RETRY_S)
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
        return entry

    def _read(self, key: _Key) -> SealedCredential:
        deployment_id, intake_id, job_id, name, host = key
        self._control.drop_broken()
        return self._control.credential(
            worker=self._worker,
            deployment_id=deployment_id,
            intake_id=intake_id,
            job_id=job_id,
            name=name,
            host=host,
        )

    def _current(self, sealed: SealedCredential, *, host: str) -> Credential:
        """Return the opened credential; open it again if its row changed in any column, because
        only the seal proves the department and the hosts."""
        known, credential = self._opened.get(sealed.id, (None, None))
        if known is not None and sealed.version < known.version:
            logger.error(
                "Credential %s of %s went back from version %d to %d",
                sealed.name, sealed.department, known.version, sealed.version,
            )  # fmt: skip
            raise credential_unavailable(
                f"The credential {sealed.name} has an older version than before; enter it again."
            )
        if credential is None or sealed != known:
            credential = self._open(sealed)
        if host not in sealed.hosts:
            raise credential_unavailable(f"The credential {sealed.name} may not be sent to {host}.")
        self._opened[sealed.id] = (sealed, credential)
        self._opened.move_to_end(sealed.id)
        if len(self._opened) > ENTRIES_MAX:
            self._opened.popitem(last=False)
        return credential

    def _open(self, sealed: SealedCredential) -> Credential:
        context = secret_context(
            department=sealed.department,
            name=sealed.name,
            kind=sealed.kind,
            hosts=sealed.hosts,
            version=sealed.version,
        )
        try:
            secret = SECRETS[sealed.kind].opened(self._opener.open(sealed.sealed, context))
            return self._made(secret, sealed)
        except (KeyError, NotOpened, ValidationError) as error:
            # Not the error's text: that of a validation may have values.
            logger.error(
                "Credential %s of %s cannot be opened: %s",
                sealed.name, sealed.department, type(error).__name__,
            )  # fmt: skip
        raise credential_unavailable(
            f"The credential {sealed.name} cannot be opened by this worker's keys; enter it again."
        )

    def _made(self, secret: Secret, sealed: SealedCredential) -> Credential:
        if secret.token_host and secret.token_host not in sealed.hosts:
            raise NotOpened("Its token endpoint is not one of its hosts.")
        match secret:
            case HeaderSecret():
                return HeaderCredential(secret)
            case OAuth2Secret():
                return OAuth2Credential(secret, self._fetch)
            case GoogleSecret():
                return GoogleCredential(secret, self._fetch)
            case AwsSecret():
                return AwsCredential(secret)
        raise NotOpened("Its kind is unknown.")
