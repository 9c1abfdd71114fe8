"""Load deployments that are scaled to zero: requests trigger the load and wait for it. Deployments
that answer requests are reported at each snapshot, so that they are not scaled to zero meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection

import redis
import redis.asyncio
from django.conf import settings

from assay.gateway.access.admission import Admitted, ModelRequest
from assay.gateway.access.decisions import NotReady, is_ready, require_ready
from assay.gateway.access.refresher import Refresher
from assay.gateway.access.snapshot import Snapshot
from assay.gateway.http.waiting import WaitingBound
from workers.wire import DEPLOYMENTS_CHANNEL, IN_USE_KEY, WANTED_KEY, wake_message

logger = logging.getLogger(__name__)
# Requests of one process that may wait for a load at a time, in total and per department.
WAITING_MAX = 256
DEPARTMENT_WAITING_MAX = 64
# Interval of checks of the snapshot, and of requests to the controller, in seconds.
LOOK_S = 0.1
ASK_EVERY_S = 2.0


class ColdStarts:
    """Requests deployments from the controller, each at most once in `ASK_EVERY_S`."""

    def __init__(self, client: redis.asyncio.Redis, refresher: Refresher) -> None:
        self._client = client
        self._refresher = refresher
        self._requested_at: dict[int, float] = {}
        self._reporting: asyncio.Task[None] | None = None
        self._waiting = WaitingBound(
            total=WAITING_MAX,
            of_department=DEPARTMENT_WAITING_MAX,
            refusal="Too many requests wait for deployments that are being loaded.",
        )

    async def ask(self, deployment_id: int) -> None:
        """Request that the controller load a deployment that is scaled to zero."""
        now = time.monotonic()
        if now - self._requested_at.get(deployment_id, float("-inf")) < ASK_EVERY_S:
            return
        self._requested_at = {
            pk: at for pk, at in self._requested_at.items() if now - at < ASK_EVERY_S
        }
        self._requested_at[deployment_id] = now
        try:
            await self._client.zadd(WANTED_KEY, {str(deployment_id): time.time()})
            await self._client.publish(DEPLOYMENTS_CHANNEL, wake_message(()))
        except (redis.RedisError, OSError) as error:
            logger.warning("Deployment %s could not be requested: %s", deployment_id, error)

    def note(self, snapshot: Snapshot, running: Collection[int]) -> None:
        """Tell the controller which of the deployments that may be scaled to zero are in use.
        Returns at once, so that an unavailable broker delays no snapshot.
        """
        in_use = {entry.id for entry in snapshot.entries(running) if entry.may_sleep}
        if in_use and (self._reporting is None or self._reporting.done()):
            self._reporting = asyncio.create_task(self._note(in_use))

    async def _note(self, deployment_ids: Collection[int]) -> None:
        now = time.time()
        try:
            await self._client.zadd(IN_USE_KEY, {str(pk): now for pk in deployment_ids})
        except (redis.RedisError, OSError) as error:
            logger.warning("Deployments in use could not be reported: %s", error)

    async def loaded(self, model_request: ModelRequest, admitted: Admitted) -> Admitted:
        """Wait until a deployment that may be scaled to zero has a ready replica, and return the
        new admission of the request. Nothing is awaited after that admission.

        Raises:
            NotReady: no replica is ready, or none became ready in `ASSAY_GATEWAY_COLD_START_S`.
            Unavailable: too many requests wait.
            DomainError: what admitted the request no longer holds.
        """
        entry = admitted.deployment
        if not entry.may_sleep:
            require_ready(entry)
        until = time.monotonic() + settings.GATEWAY_COLD_START_S
        with self._waiting.place(admitted.key.department or ""):
            await self.ask(entry.id)
            while time.monotonic() < until:
                await asyncio.sleep(LOOK_S)
                snapshot = await self._refresher.knowing(model_request.caller.token.public_id)
                admitted = model_request.admit(snapshot)
                if admitted.deployment.id != entry.id:
                    break  # Another release has taken its name; its prompt may differ.
                if is_ready(admitted.deployment):
                    return admitted
                await self.ask(entry.id)
        raise NotReady.asleep(entry)
