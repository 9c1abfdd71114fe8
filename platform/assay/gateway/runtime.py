"""Everything of one gateway process that lives on its event loop."""

from __future__ import annotations

import asyncio
import logging

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
from assay.gateway.quotas import DeviceTimes, Quotas
from assay.gateway.refresher import Refresher
from assay.gateway.replies import Replies
from assay.gateway.response_desk import ResponseDesk
from assay.gateway.worker_watch import WorkerWatch
from governance.usage.sealing import require_usage_key
from workers import tracing
from workers.sealing import GatewaySeals, WireKey
from workers.wire import CANCEL_CHANNEL

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
        self.replies = Replies(self._reader)
        self.worker_watch = WorkerWatch(self.client, self.replies)
        self.refresher = Refresher(self.client)
        self.cold_starts = ColdStarts(self.client, self.refresher)
        self.running = Running(self.refresher, self.cold_starts.note)
        self.cancellations = Cancellations(self.client, wire)
        self.media = MediaDesk()
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
        self.batches.start()

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
    """Publishes cancellations to the engine workers."""

    def __init__(self, client: redis.asyncio.Redis, wire: WireKey) -> None:
        self._client = client
        self._wire = wire

    async def publish(self, request_id: str) -> None:
        """Tell the workers that the caller stopped waiting. A lost message costs only compute."""
        try:
            await self._client.publish(CANCEL_CHANNEL, self._wire.cancel_message(request_id))
        except (redis.RedisError, OSError) as error:
            logger.warning("Request %s could not be cancelled: %s", request_id, error)
