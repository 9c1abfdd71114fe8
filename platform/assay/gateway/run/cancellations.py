"""Cancellations of requests, sent to engine workers."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterable
from typing import Any

import redis.asyncio

from assay.gateway.run.reply_streams import Replies
from workers.request_logs import about
from workers.wire import cancel_channel, realm_of
from workers.wire_keys import WireKey

logger = logging.getLogger(__name__)


class Cancellations:
    """Publishes cancellations to the engine workers that may have a request."""

    def __init__(self, client: redis.asyncio.Redis, wire: WireKey, replies: Replies) -> None:
        self._client = client
        self._wire = wire
        self._replies = replies

    def publish(self, request_id: str, workers: Iterable[str] = ()) -> Coroutine[Any, Any, None]:
        """Tell the workers that the caller stopped waiting. A lost message costs only compute.

        The recipients are determined at the call, since the request may be closed before messages
        are sent. For a request of another gateway, pass the addresses of its `workers`.
        """
        realms = self._replies.realms(request_id) | {realm_of(worker) for worker in workers}
        return self._publish(request_id, realms)

    async def _publish(self, request_id: str, realms: frozenset[str]) -> None:
        try:
            for realm in realms:
                message = self._wire.of(realm).cancel_message(request_id)
                await self._client.publish(cancel_channel(realm), message)
        except (redis.RedisError, OSError) as error:
            logger.warning(
                "Request %s could not be canceled: %s", request_id, error, extra=about(request_id)
            )
