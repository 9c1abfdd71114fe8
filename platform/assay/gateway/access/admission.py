"""Admit requests, and decide whether running ones may continue.

A request is admitted in the same step that starts to watch it, and checked again while it runs
whenever keys, policy or releases change. A revoked key is refused at the next request, and ends the
requests that are running with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from assay.gateway.access.authentication import authenticate
from assay.gateway.access.decisions import (
    RELEASE_ENDED,
    Circumstances,
    Grounds,
    InvocationDenied,
    find_deployment,
)
from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.access.key_entries import KeyEntry
from assay.gateway.access.refresher import Change, Refresher
from assay.gateway.access.snapshot import Snapshot
from governance.errors import DomainError, NotPermitted, Unavailable
from governance.keys.tokens import ParsedToken

# Interval at which running requests are checked against the clock, in seconds.
TICK_S = 0.5
# A changed key that could not be read again for this many seconds counts as invalid.
PATIENCE_S = 1.0
# Running requests that are checked before the event loop gets its turn.
_SLICE = 50


@dataclass(frozen=True, slots=True)
class Admitted:
    """The key of an admitted request, and the decision that admitted it."""

    key: KeyEntry
    grounds: Grounds

    @property
    def deployment(self) -> DeploymentEntry:
        return self.grounds.deployment


@dataclass(frozen=True, slots=True)
class Caller:
    """The credential of a request, its circumstances, and the digest of its browser session, if
    any."""

    token: ParsedToken
    circumstances: Circumstances
    session: bytes = b""

    @property
    def client_address(self) -> str:
        return self.circumstances.client_address

    def authenticate(self, snapshot: Snapshot) -> KeyEntry:
        """Return the caller's key. Raises KeyRefused."""
        return authenticate(snapshot, self.token, self.client_address, self.session)

    def under(self, **circumstances: Any) -> Caller:
        """Return the caller with some circumstances changed."""
        return Caller(self.token, replace(self.circumstances, **circumstances), self.session)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A request for a deployment. `named` is true if the caller named the deployment. A knowledge
    base names the one that embeds its questions; a key's list of deployments does not apply to it.
    `target` is the ID of the primary or target that answers; None: the primary of the moment.
    `sources` are the document versions that the answer is based on.
    """

    caller: Caller
    model: str
    named: bool = True
    sources: frozenset[int] = frozenset()
    target: int | None = None

    def entry(self, snapshot: Snapshot) -> DeploymentEntry | None:
        """Return the deployment that is to answer; None if it is not live."""
        if self.target is None:
            return snapshot.deployments.get(self.model)
        return snapshot.entry(self.target)

    def admit(self, snapshot: Snapshot) -> Admitted:
        """Return the key and the decision by which it may run under `snapshot`.

        Raises:
            KeyRefused, ModelUnknown, InvocationDenied, NotConfirmed: it may not run.
        """
        key = self.caller.authenticate(snapshot)
        circumstances = self.caller.circumstances
        grounds = find_deployment(snapshot, key, self.model, circumstances, self.target)
        narrowed = self.named and key.allowed_deployments
        if narrowed and self.model not in key.allowed_deployments:
            raise InvocationDenied(
                f"{key.title} is limited to {', '.join(sorted(key.allowed_deployments))}; "
                f"it may not use {self.model}.",
                code="deployment_not_allowed",
                grounds=grounds,
            )
        return Admitted(key, grounds)


class RunningRequest:
    """One running request, on the deployment that answers it. `cut` is called once, with the error
    that ends it."""

    __slots__ = ("cut", "deployment_id", "model_request")

    def __init__(
        self, model_request: ModelRequest, deployment_id: int, cut: Callable[[DomainError], None]
    ) -> None:
        self.move(model_request, deployment_id)
        self.cut = cut

    def move(self, model_request: ModelRequest, deployment_id: int) -> None:
        """Watch the request on another deployment. Call it right after `ModelRequest.admit`."""
        self.model_request = replace(model_request, target=deployment_id)
        self.deployment_id = deployment_id

    @property
    def public_id(self) -> str:
        """Public ID of its key."""
        return self.model_request.caller.token.public_id

    def fault(self, snapshot: Snapshot) -> DomainError | None:
        """Return the error that ends this request under `snapshot`; None if it may go on.

        Workers end the requests of a stopped or replaced deployment themselves; only if a recall
        stopped it must the gateway end them.
        """
        if recalled := self.model_request.sources & snapshot.recalled_documents.keys():
            return NotPermitted(
                f"{snapshot.recalled_documents[min(recalled)]} was recalled during the request.",
                code="document_recalled",
                hint="Send the request again; the document is no longer used.",
            )
        try:
            if snapshot.entry(self.deployment_id) is None:
                self.model_request.caller.authenticate(snapshot)
                if reason := snapshot.recalled.get(self.deployment_id):
                    return NotPermitted(
                        f"Deployment {self.model_request.model} does not serve. {reason}",
                        code=RELEASE_ENDED,
                    )
            else:
                self.model_request.admit(snapshot)
        except DomainError as error:
            return error
        return None


class Running:
    """Running requests of this process."""

    def __init__(
        self, refresher: Refresher, note: Callable[[Snapshot, Collection[int], Change], None]
    ) -> None:
        """`note` gets each snapshot, the IDs of the deployments that answer these requests, and the
        difference from the snapshot before."""
        self._refresher = refresher
        self._note = note
        self._requests: set[RunningRequest] = set()
        self._ticker: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._refresher.on_change = self.review
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)

    def enter(self, running: RunningRequest) -> None:
        """Watch a request. Call it right after `ModelRequest.admit`, with no await between."""
        self._requests.add(running)
        self._refresher.keys.pin(running.public_id)

    def leave(self, running: RunningRequest) -> None:
        if running in self._requests:
            self._requests.remove(running)
            self._refresher.keys.unpin(running.public_id)

    async def review(self, snapshot: Snapshot, change: Change) -> None:
        """End requests that `snapshot` no longer admits, among those that `change` concerns."""
        self._note(snapshot, {running.deployment_id for running in self._requests}, change)
        for number, running in enumerate(list(self._requests), 1):
            public_id = running.public_id
            if not change.concerns(public_id, running.model_request.model):
                continue
            # If its key is about to be read again, the request is checked after that reading.
            if public_id not in self._refresher.pending and running in self._requests:
                self._judge(running, running.fault(snapshot))
            if number % _SLICE == 0:
                await asyncio.sleep(0)

    def _judge(self, running: RunningRequest, fault: DomainError | None) -> None:
        if fault is not None:
            self.leave(running)
            running.cut(fault)

    async def _tick(self) -> None:
        """End requests whose key or release has expired, which publishes no notice, or whose
        changed key could not be read again in time."""
        while True:
            await asyncio.sleep(TICK_S)
            snapshot = self._refresher.snapshot
            for running in list(self._requests):
                self._judge(running, self._overdue(running, snapshot))

    def _overdue(self, running: RunningRequest, snapshot: Snapshot | None) -> DomainError | None:
        public_id = running.public_id
        since = self._refresher.pending.get(public_id)
        if snapshot is None or (since is not None and time.monotonic() - since > PATIENCE_S):
            return Unavailable(
                "The key has changed and could not be read again, so the request was ended.",
                retry_after=2,
            )
        key, now = snapshot.keys.get(public_id), time.time()
        deployment = snapshot.entry(running.deployment_id)
        ended = deployment is not None and (
            deployment.expires_at <= now or deployment.leased_until <= time.monotonic()
        )
        if since is None and (ended or key is None or key.expires_at <= now):
            return running.fault(snapshot)
        return None
