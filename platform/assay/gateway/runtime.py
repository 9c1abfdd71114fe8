"""Objects of one gateway process that live on its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import redis.asyncio
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from assay.gateway.access.admission import Running
from assay.gateway.access.refresher import Change, Refresher
from assay.gateway.access.snapshot import Snapshot
from assay.gateway.batches.runner import BatchRunner
from assay.gateway.inference import Inference
from assay.gateway.knowledge.index_cache import IndexCache
from assay.gateway.knowledge.retrieval import Retrieval
from assay.gateway.monitoring.tallies import TALLY
from assay.gateway.quota.ledger import Ledger
from assay.gateway.quota.quotas import DeviceTimes, Quotas
from assay.gateway.run.affinity import Affinity
from assay.gateway.run.cancellations import Cancellations
from assay.gateway.run.cold_start import ColdStarts
from assay.gateway.run.media import MediaDesk
from assay.gateway.run.pace import Paces
from assay.gateway.run.parts import Parts
from assay.gateway.run.pipeline import Pipeline
from assay.gateway.run.plug_ins import PlugInDesk
from assay.gateway.run.reply_streams import Replies
from assay.gateway.run.request_log import RequestLog
from assay.gateway.run.routing import Router
from assay.gateway.run.shadows import Shadows
from assay.gateway.run.worker_watch import WorkerWatch
from assay.gateway.stored.conversations import ResponseDesk
from assay.gateway.stored.feedback import FeedbackDesk
from assay.gateway.stored.requests import Desks
from assay.gateway.stored.uploads import FileDesk
from governance.usage.sealing import require_usage_key
from workers import tracing
from workers.sealing import GatewaySeals
from workers.wire_keys import WireKey

_CONNECTIONS = 8
_TIMEOUT_S = 2


def _client() -> redis.asyncio.Redis:
    """Return the client for notices, workers' keys and cancellations."""
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
    """Create and start it on the event loop that it serves."""

    def __init__(self) -> None:
        require_usage_key()
        wire = WireKey(settings.WIRE_KEY)
        self.client = _client()
        # Two connections: reservations and settlements on one, replies on the other, whose blocking
        # reads of one second each need a longer timeout.
        self._commands = Pipeline(settings.REDIS_URL, timeout_s=_TIMEOUT_S)
        self._reader = Pipeline(settings.REDIS_URL, timeout_s=10)
        quotas, replies = Quotas(self._commands), Replies(self._reader, self._commands)
        refresher, ledger, seals = Refresher(self.client), Ledger(quotas), GatewaySeals(wire)
        cancellations = Cancellations(self.client, wire, replies)
        self.parts = Parts(
            running=Running(refresher, self._note),
            refresher=refresher,
            quotas=quotas,
            device_times=DeviceTimes(),
            ledger=ledger,
            replies=replies,
            affinity=Affinity(),
            seals=seals,
            cancellations=cancellations,
            plug_ins=PlugInDesk(),
            router=Router(),
            paces=Paces(),
            shadows=Shadows(refresher, ledger, quotas, replies, seals, cancellations),
            request_log=RequestLog(),
        )
        self.ledger = self.parts.ledger
        self.worker_watch = WorkerWatch(self.client, replies)
        self._cold_starts = ColdStarts(self.client, refresher)
        self.media = MediaDesk()
        self._indexes = IndexCache()
        retrieval = Retrieval(self.parts, self.media, self._indexes, self._cold_starts)
        responses = ResponseDesk()
        self.inference = Inference(self.parts, self.media, self._cold_starts, retrieval, responses)
        self._batches = BatchRunner(self.client, self.parts, self.inference)
        self.desks = Desks(
            ledger=self.ledger,
            retrieval=retrieval,
            responses=responses,
            files=FileDesk(),
            feedback=FeedbackDesk(),
            wake_batches=self._batches.wake,
        )

    def start(self) -> None:
        tracing.start("assay-web")
        self.parts.running.start()
        self.parts.refresher.start()
        self.parts.replies.start()
        self.worker_watch.start()
        self.ledger.start()
        self.parts.request_log.start()
        self.media.start()
        self._batches.start()

    def _note(self, snapshot: Snapshot, answering: Collection[int], change: Change) -> None:
        """Pass the deployments that are answering requests to the parts that need them."""
        if change.whole:
            self._cold_starts.note(snapshot, answering)
        realms = {entry.id: entry.realms for entry in snapshot.entries(answering)}
        self.parts.replies.placed(realms, snapshot.read_at)

    async def stop(self) -> None:
        """Settle running requests, then stop all parts."""
        await self._batches.stop()
        await self.ledger.stop()
        await self.parts.quotas.backlogs.close()
        await self.parts.request_log.stop()
        await self.worker_watch.stop()
        await self.parts.replies.stop()
        await self.parts.refresher.stop()
        await self.parts.running.stop()
        await self.media.stop()
        for desk in (self.desks.feedback, self.desks.responses, self.desks.files):
            await desk.stop()
        await self._indexes.stop()
        await asyncio.gather(self._commands.aclose(), self._reader.aclose(), self.client.aclose())
        await self.client.connection_pool.disconnect()
        TALLY.write()
        await asyncio.to_thread(tracing.stop)
