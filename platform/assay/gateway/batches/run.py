"""One batch, from its claim to its end or to the loss of the claim."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import redis
from django.conf import settings

from assay.gateway.access.admission import Application, Caller
from assay.gateway.access.authentication import ProvedToken
from assay.gateway.access.decisions import RELEASE_ENDED, Circumstances, ModelUnknown
from assay.gateway.batches.line import Later, Lines, Stopped
from assay.gateway.batches.places import BatchPlaces
from assay.gateway.run.routes import deployment_path, find_route
from governance.errors import DomainError, Unavailable
from registry.batches.models import Batch, BatchState
from registry.batches.outputs import batch_complete
from registry.batches.requests import Fault, LineInvalid, Validated, line_limit, validate_input
from registry.batches.running import (
    LEASE,
    Claim,
    ClaimLost,
    LineResult,
    Taken,
    batch_begin,
    batch_finalize,
    batch_reject,
    batch_release,
    batch_renew,
    line_finish,
    line_give_back,
    line_take,
    lines_interrupted,
)
from registry.files.content import content_path
from registry.files.room import NoRoom
from workers import tracing

logger = logging.getLogger(__name__)

# Seconds after which a batch looks again for a place on its deployment.
_LOOK_S = 0.2
_RENEW_S = LEASE.total_seconds() / 3
_LONGEST_WAIT_S = 60.0
# A batch ends once so many lines in a row were refused because nothing serves them any more. More
# than one, since a deployment may be stopped and made again.
REFUSALS_MAX = 10
_NOTHING_SERVES = frozenset({RELEASE_ENDED, ModelUnknown.code})
# A line that its worker could not answer is asked so many times. The pause before the second time,
# in seconds, doubles each time: a worker that was lost has to load its model again.
ENGINE_TRIES = 6
_ENGINE_PAUSE_S = 4.0
_INPUT_GONE = Fault("input_file_gone", "The content of the input file is gone.")


class BatchRun:
    """Runs a claimed batch. `run` is called once; `stop` ends it, to go on elsewhere."""

    def __init__(self, lines: Lines, places: BatchPlaces, batch: Batch, claim: Claim) -> None:
        self._lines = lines
        self._parts, self._desk = lines.parts, lines.desk
        self._places = places
        self._batch = batch
        self._claim = claim
        self._limit = line_limit(settings.GATEWAY_MAX_BODY_BYTES)
        self._draining = asyncio.Event()
        self._stopping = asyncio.Event()
        # The deployment on which a holder has its place.
        self._held: dict[str, int] = {}
        self._looked_at = 0.0
        self._paused_until = 0.0
        self._refusals = 0
        self._ending: BatchState | None = None
        self._faults: tuple[Fault, ...] = ()

    def drain(self) -> None:
        """Start no more lines."""
        self._draining.set()

    def stop(self) -> None:
        """Start no more lines, and give back those that run."""
        self._draining.set()
        self._stopping.set()

    async def run(self) -> None:
        """Run the batch until it has ended, its claim is lost, or `stop` is called."""
        renewing = asyncio.create_task(self._renew())
        batch = {
            tracing.BATCH_ID: str(self._batch.pk), tracing.BATCH_ENDPOINT: self._batch.endpoint
        }  # fmt: skip
        try:
            with tracing.step(tracing.Step.BATCH, batch):
                await self._run()
        except ClaimLost:
            logger.info("Batch %s goes on elsewhere, or has ended.", self._batch.pk)
        except (Unavailable, redis.RedisError, OSError) as error:
            # Its lease ends, and it is claimed again.
            logger.warning("Batch %s waits: %s", self._batch.pk, error)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        if self._draining.is_set():
            try:
                await self._desk.in_thread(lambda: batch_release(self._claim))
            except Unavailable:
                logger.warning("Batch %s is claimed again after its lease.", self._batch.pk)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            try:
                await self._desk.in_thread(lambda: batch_renew(self._claim))
            except ClaimLost:
                self.stop()
                return
            except Unavailable as error:
                logger.warning("Batch %s could not be renewed: %s", self._batch.pk, error)

    async def _run(self) -> None:
        if self._batch.state == BatchState.VALIDATING:
            with tracing.step(tracing.Step.VALIDATE):
                if not await self._validate():
                    return
        if self._batch.state in (BatchState.IN_PROGRESS, BatchState.CANCELLING):
            await self._settle_interrupted()
        if self._batch.state == BatchState.IN_PROGRESS:
            with tracing.step(tracing.Step.LINES):
                await self._ask_all()
        if self._draining.is_set():
            return
        with tracing.step(tracing.Step.COMPLETE):
            ending = await self._desk.in_thread(
                lambda: batch_finalize(claim=self._claim, ending=self._ending, faults=self._faults)
            )
            await self._desk.in_thread(
                lambda: batch_complete(claim=self._claim, ending=ending, limit=self._limit)
            )

    async def _validate(self) -> bool:
        """Return whether the batch goes on."""
        found = await self._desk.in_thread(self._read_input)
        faults = found.faults or await self._refusal(found.model)
        if faults:
            await self._desk.in_thread(lambda: batch_reject(claim=self._claim, faults=faults))
            return False
        self._batch = await self._desk.in_thread(
            lambda: batch_begin(claim=self._claim, total=found.total, model=found.model)
        )
        return True

    def _read_input(self) -> Validated:
        try:
            return validate_input(
                content_path(self._batch.input_file),
                self._batch.endpoint,
                limit=self._limit,
                lines_max=settings.BATCH_MAX_REQUESTS,
            )
        except FileNotFoundError:
            return Validated(faults=[_INPUT_GONE])

    async def _refusal(self, model: str) -> list[Fault]:
        """Return why the key may not use the deployment now, before tens of thousands of lines are
        refused one by one."""
        batch, token = self._batch, ProvedToken(self._batch.sender, "")
        circumstances = Circumstances(batch.client_address, batch.classification)
        try:
            snapshot = await self._parts.refresher.knowing(token.public_id)
            application = Application(Caller(token, circumstances), model)
            deployment = application.admit(snapshot).deployment
        except Unavailable:
            return []
        except DomainError as error:
            return [Fault(error.code, error.message)]
        route, _ = find_route(batch.endpoint)
        if route is None or deployment.task not in route.endpoints:
            right = deployment_path(deployment.task, deployment.name) or "no path of batches"
            return [
                Fault(
                    "wrong_endpoint",
                    f"Deployment {deployment.name} is for {deployment.task}; use {right}.",
                )
            ]
        return []

    async def _settle_interrupted(self) -> None:
        """Settle what ran when the process before this one ended; ask again what cost nothing."""
        for line in await self._desk.in_thread(lambda: lines_interrupted(self._claim)):
            await self._settle_line(line.number, line.request_id)

    async def _settle_line(self, number: int, request_id: str) -> None:
        if await self._lines.may_ask_again(self._batch, number, request_id):
            await self._desk.in_thread(lambda: line_give_back(claim=self._claim, number=number))
            return
        lost = LineResult(
            error="result_lost",
            message="The gateway ended while it answered; the request is billed. Send it again.",
        )
        await self._desk.in_thread(
            lambda: line_finish(claim=self._claim, number=number, result=lost)
        )

    async def _ask_all(self) -> None:
        workers = [
            asyncio.create_task(self._work(f"{self._batch.pk}:{number}"))
            for number in range(settings.BATCH_CONCURRENCY)
        ]
        try:
            await asyncio.gather(*workers)
        except BaseException:
            self.stop()
            await asyncio.gather(*workers, return_exceptions=True)
            raise

    async def _work(self, holder: str) -> None:
        again = False
        while await self._turn(holder, again=again):
            try:
                if not await self._next_line():
                    return
            finally:
                await self._leave(holder)
            again = True

    async def _next_line(self) -> bool:
        """Ask the next line; return whether there was one."""
        try:
            taken = await self._desk.in_thread(
                lambda: line_take(claim=self._claim, limit=self._limit)
            )
        except (FileNotFoundError, LineInvalid):
            self._end(_INPUT_GONE)
            return False
        except NoRoom as error:
            self._end(Fault(error.code, error.message))
            return False
        if taken is None:
            return False
        await self._answer(taken)
        return True

    async def _turn(self, holder: str, *, again: bool) -> bool:
        """Wait until the batch may add a request, and take a place on its deployment.

        Returns:
            Whether it may; else no more lines are started.
        """
        while not self._draining.is_set() and self._ending is None:
            wait = self._paused_until - time.monotonic()
            if wait <= 0 and not self._parts.ledger.blocked:
                if await self._take_place(holder, again=again):
                    return True
                again = False
            if time.time() >= self._batch.expires_at.timestamp():
                return True  # `line_take` ends it.
            await self._pause(min(max(wait, _LOOK_S), 1.0))
            if time.monotonic() - self._looked_at > 1.0:
                self._looked_at = time.monotonic()
                await self._desk.in_thread(self._heed)
        return False

    def _heed(self) -> None:
        """Learn of a cancellation while the batch waits."""
        states = Batch.objects.filter(pk=self._claim.batch_id).values_list("state", flat=True)
        if states.first() == BatchState.CANCELLING:
            self._ending = BatchState.CANCELLED

    async def _take_place(self, holder: str, *, again: bool) -> bool:
        snapshot = self._parts.refresher.snapshot
        entry = None if snapshot is None else snapshot.deployments.get(self._batch.model)
        if entry is None:
            return True  # The line is refused in words.
        if not await self._places.take(entry.id, holder, again=again):
            return False
        self._held[holder] = entry.id
        return True

    async def _leave(self, holder: str) -> None:
        if (deployment := self._held.pop(holder, None)) is None:
            return
        try:
            await self._places.leave(deployment, holder)
        except (redis.RedisError, OSError) as error:
            logger.warning("A place of %s is free after its time: %s", holder, error)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        except TimeoutError:
            return

    async def _answer(self, taken: Taken) -> None:
        number = taken.number
        found = await self._lines.ask(self._batch, taken, self._stopping)
        result: LineResult | None = None
        if isinstance(found, LineResult):
            result = found
            self._count_refusal(found, for_good=found.error in _NOTHING_SERVES)
        elif isinstance(found, Stopped):
            self._end(Fault(found.error.code, found.error.message))
            result = found.result
        elif isinstance(found, Later):
            result = self._given_up(taken, found)
            if result is None:
                self._wait(taken, found)
            elif not found.engine_failed:
                self._count_refusal(result, for_good=True)
        if result is not None:
            done = result
            await self._insist(lambda: line_finish(claim=self._claim, number=number, result=done))
            return
        failed = isinstance(found, Later) and found.engine_failed
        await self._insist(
            lambda: line_give_back(claim=self._claim, number=number, engine_failed=failed)
        )

    def _given_up(self, taken: Taken, later: Later) -> LineResult | None:
        """Return the result of a line that is not asked again; None for one that is."""
        if later.engine_failed:
            return later.result if taken.engine_failures + 1 >= ENGINE_TRIES else None
        late = time.time() + later.seconds > self._batch.expires_at.timestamp()
        return later.result if late else None

    def _count_refusal(self, result: LineResult, *, for_good: bool) -> None:
        """End the batch when line after line is refused `for_good`: nothing serves them any more,
        or a budget has no room before the batch's end."""
        self._refusals = self._refusals + 1 if for_good else 0
        if self._refusals >= REFUSALS_MAX and self._ending is None:
            message = f"{self._refusals} requests in a row were refused. {result.message}"
            self._end(Fault(result.error, message))

    async def _insist(self, step: Callable[[], None]) -> None:
        """Run a step although the database is away for a while: an answer is paid for."""
        until = time.monotonic() + LEASE.total_seconds()
        while True:
            try:
                await self._desk.in_thread(step)
                return
            except Unavailable:
                if time.monotonic() > until or self._stopping.is_set():
                    raise
                await asyncio.sleep(_LOOK_S)

    def _wait(self, taken: Taken, later: Later) -> None:
        """Start no line of the batch before this one may run."""
        seconds = later.seconds
        if later.engine_failed:
            seconds = max(seconds, _ENGINE_PAUSE_S * 2**taken.engine_failures)
        seconds = min(max(seconds, 0.1), _LONGEST_WAIT_S)
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _end(self, fault: Fault) -> None:
        """End the batch as failed; its files hold what has run."""
        self._ending, self._faults = BatchState.FAILED, (fault,)
