"""Everything of one gateway process that lives on its event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterable
from typing import Any

import redis.asyncio
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from assay.gateway.admission import Running
from assay.gateway.batch_runner import BatchRunner
from assay.gateway.cold_start import ColdStarts
from assay.gateway.feedback import FeedbackDesk
from assay.gateway.file_upload import FileDesk
from assay.gateway.index_cache import IndexCache
from assay.gateway.ledger import Ledger
from assay.gateway.media import MediaDesk
from assay.gateway.pipeline import Pipeline
from assay.gateway.plug_ins import PlugInDesk
from assay.gateway.quotas import DeviceTimes, Quotas
from assay.gateway.refresher import Refresher
from assay.gateway.replies import Replies
from assay.gateway.response_desk import ResponseDesk
from assay.gateway.snapshot import Snapshot
from assay.gateway.worker_watch import WorkerWatch
from governance.usage.sealing import require_usage_key
from workers import tracing
from workers.sealing import GatewaySeals
from workers.wire import cancel_channel, realm_of
from workers.wire_keys import WireKey

logger = logging.getLogger(__name__)

_CONNECTIONS = 8
_TIMEOUT_S = 2


def _client() -> redis.asyncio.Redis:
    """For notices, signs of life and cancellations."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        settings.REDIS_URL,
        max_connections=_CONNECTIONS,
        timeout=_TIMEOUT_S,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    return redis.asyncio.Redis(connection_pool=pool)


class Runtime:
    """Made and started on the loop that it serves."""

    def __init__(self) -> None:
        require_usage_key()
        wire = WireKey(settings.WIRE_KEY)
        self.seals = GatewaySeals(wire)
        self.client = _client()
        # Two connections: reservations and settlements on one, replies on the other, whose blocking
        # reads of one second each need a longer timeout.
        self._commands = Pipeline(settings.REDIS_URL, timeout_s=_TIMEOUT_S)
        self._reader = Pipeline(settings.REDIS_URL, timeout_s=10)
        self.quotas = Quotas(self._commands)
        self.device_times = DeviceTimes()
        self.ledger = Ledger(self.quotas)
        self.replies = Replies(self._reader, self._commands)
        self.worker_watch = WorkerWatch(self.client, self.replies)
        self.refresher = Refresher(self.client)
        self.cold_starts = ColdStarts(self.client, self.refresher)
        self.running = Running(self.refresher, self._note)
        self.cancellations = Cancellations(self.client, wire, self.replies)
        self.media = MediaDesk()
        self.plug_ins = PlugInDesk()
        self.feedback = FeedbackDesk()
        self.responses = ResponseDesk()
        self.files = FileDesk()
        self.batches = BatchRunner(self)
        self.indexes = IndexCache()

    def start(self) -> None:
        tracing.start("assay-web")
        self.running.start()
        self.refresher.start()
        self.replies.start()
        self.worker_watch.start()
        self.ledger.start()
        self.media.start()
        self.batches.start()

    def _note(self, snapshot: Snapshot, answering: Collection[int]) -> None:
        """Hear which deployments answer requests at a new snapshot."""
        self.cold_starts.note(snapshot, answering)
        entries = snapshot.deployments.values()
        realms = {each.id: each.realms for each in entries if each.id in answering}
        self.replies.placed(realms, snapshot.read_at)

    async def stop(self) -> None:
        """Settle what is under way, then let go of everything."""
        await self.batches.stop()
        await self.ledger.stop()
        await self.worker_watch.stop()
        await self.replies.stop()
        await self.refresher.stop()
        await self.running.stop()
        await self.media.stop()
        await self.feedback.stop()
        await self.responses.stop()
        await self.files.stop()
        await self.indexes.stop()
        await asyncio.gather(self._commands.aclose(), self._reader.aclose(), self.client.aclose())
        await self.client.connection_pool.disconnect()
        await asyncio.to_thread(tracing.stop)


class Cancellations:
    """Publishes cancellations to the engine workers that may have a request."""

    def __init__(self, client: redis.asyncio.Redis, wire: WireKey, replies: Replies) -> None:
        self._client = client
        self._wire = wire
        self._replies = replies

    def publish(self, request_id: str, workers: Iterable[str] = ()) -> Coroutine[Any, Any, None]:
        """Tell the workers that the caller stopped waiting. A lost message costs only compute.

        They are those that have the request as far as is known at the call, since it may be closed
        before the messages are sent; of a request of another gateway, `workers` by address.
        """
        realms = self._replies.realms(request_id) | {realm_of(worker) for worker in workers}
        return self._publish(request_id, realms)

    async def _publish(self, request_id: str, realms: frozenset[str]) -> None:
        try:
            for realm in realms:
                message = self._wire.of(realm).cancel_message(request_id)
                await self._client.publish(cancel_channel(realm), message)
        except (redis.RedisError, OSError) as error:
            logger.warning("Request %s could not be canceled: %s", request_id, error)
