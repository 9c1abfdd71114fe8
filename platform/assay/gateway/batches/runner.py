"""Loop of a web process that claims and runs batches, which yield to online requests."""

from __future__ import annotations

import asyncio
import logging

import redis.asyncio

from assay.gateway.batches.line import Lines
from assay.gateway.batches.places import BatchPlaces
from assay.gateway.batches.run import BatchRun
from assay.gateway.inference import Inference
from assay.gateway.run.parts import Parts
from assay.gateway.stored.database_desk import DatabaseDesk
from governance.errors import Unavailable
from registry.batches.running import batch_claim

logger = logging.getLogger(__name__)

# Batches that one process runs at a time, and the interval of the search for more, in seconds.
AT_ONCE = 32
POLL_S = 2.0
# Time for running lines to end, and then to return the remaining ones, in seconds.
_DRAIN_S = 3.0
_STOP_S = 5.0


class BatchRunner:
    """Start and stop it on the gateway's event loop. `wake` makes it look for a new batch."""

    def __init__(self, client: redis.asyncio.Redis, parts: Parts, inference: Inference) -> None:
        self._desk = DatabaseDesk("batches", refusal="Too many batch operations are waiting.")
        self._places = BatchPlaces(client)
        self._lines = Lines(parts, inference, self._desk)
        self._woken = asyncio.Event()
        self._runs: dict[asyncio.Task[None], BatchRun] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.create_task(self._claim_all())

    def wake(self) -> None:
        """Look for batches now."""
        self._woken.set()

    async def stop(self) -> None:
        """Return running batches, so that another process continues them."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        runs = dict(self._runs)
        for run in runs.values():
            run.drain()
        if runs:
            await asyncio.wait(list(runs), timeout=_DRAIN_S)
        for run in runs.values():
            run.stop()
        if runs:
            await asyncio.wait(list(runs), timeout=_STOP_S)
        await self._desk.stop()

    async def _claim_all(self) -> None:
        while True:
            try:
                await self._claim()
            except Unavailable as error:
                logger.warning("Batches cannot be claimed: %s", error)
            except Exception:
                logger.exception("Batches cannot be claimed")
            self._woken.clear()
            try:
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _claim(self) -> None:
        while len(self._runs) < AT_ONCE:
            claimed = await self._desk.in_thread(batch_claim)
            if claimed is None:
                return
            run = BatchRun(self._lines, self._places, *claimed)
            task = asyncio.create_task(run.run())
            self._runs[task] = run
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._runs.pop(task, None)
        self._woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A batch run failed; the batch will be claimed again", exc_info=error)
