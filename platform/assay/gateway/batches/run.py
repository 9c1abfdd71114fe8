"""Run one batch, from its claim until it ends or the claim is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import redis
from django.conf import settings

from assay.gateway.access.admission import Caller, ModelRequest
from assay.gateway.access.authentication import ProvedToken
from assay.gateway.access.decisions import RELEASE_ENDED, Circumstances, ModelUnknown
from assay.gateway.batches.line import Later, Lines, Stopped
from assay.gateway.batches.places import BatchPlaces
from governance.errors import DomainError, Unavailable
from registry.batches.models import Batch, BatchState
from registry.batches.outputs import batch_complete
from registry.batches.requests import Fault, LineInvalid, Validated, line_limit, validate_input
from registry.batches.running import (
    LEASE,
    Claim,
    ClaimedLine,
    ClaimLost,
    LineResult,
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
from registry.catalog.routes import deployment_path, find_route
from registry.files.content import content_path
from registry.files.room import NoRoom
from workers import tracing

logger = logging.getLogger(__name__)

# Interval at which a batch tries to get a place on its deployment, in seconds.
_LOOK_S = 0.2
_RENEW_S = LEASE.total_seconds() / 3
_LONGEST_WAIT_S = 60.0
# A batch ends after this many lines in a row were refused because nothing serves them. More than
# one, because a deployment may be stopped and created again.
REFUSALS_MAX = 10
_NOTHING_SERVES = frozenset({RELEASE_ENDED, ModelUnknown.code})
# Attempts for a line whose worker failed. The pause before the second one, in seconds, doubles each
# time: a worker that was lost has to load its model again.
ENGINE_TRIES = 6
_ENGINE_PAUSE_S = 4.0
_INPUT_GONE = Fault("input_file_gone", "The content of the input file is gone.")


class BatchRun:
    """Runs a claimed batch. Call `run` once; `stop` ends it, so that another process continues."""

    def __init__(self, lines: Lines, places: BatchPlaces, batch: Batch, claim: Claim) -> None:
        self._lines = lines
        self._parts, self._desk = lines.parts, lines.desk
        self._places = places
        self._batch = batch
        self._claim = claim
        self._limit = line_limit(settings.GATEWAY_MAX_BODY_BYTES)
        self._draining = asyncio.Event()
        self._stopping = asyncio.Event()
        # Deployment IDs by the holder that has a place there.
        self._place_of: dict[str, int] = {}
        self._looked_at = 0.0
        self._paused_until = 0.0
        self._refusals = 0
        self._ending: BatchState | None = None
        self._faults: tuple[Fault, ...] = ()

    def drain(self) -> None:
        """Start no more lines."""
        self._draining.set()

    def stop(self) -> None:
        """Start no more lines, and return running ones to the batch."""
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
            logger.info("Batch %s continues in another process, or has ended.", self._batch.pk)
        except (Unavailable, redis.RedisError, OSError) as error:
            # The batch is claimed again when its lease ends.
            logger.warning("Batch %s waits: %s", self._batch.pk, error)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        if self._draining.is_set():
            try:
                await self._desk.in_thread(lambda: batch_release(self._claim))
            except Unavailable:
                logger.warning("Batch %s will be claimed again after its lease.", self._batch.pk)

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
        """Validate the input file. Return false if the batch was rejected."""
        validated = await self._desk.in_thread(self._read_input)
        faults = validated.faults or await self._refusal(validated.model)
        if faults:
            await self._desk.in_thread(lambda: batch_reject(claim=self._claim, faults=faults))
            return False
        self._batch = await self._desk.in_thread(
            lambda: batch_begin(claim=self._claim, total=validated.total, model=validated.model)
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
        """Return faults if the key may not use the deployment now, so that tens of thousands of
        lines are not refused one by one."""
        batch, token = self._batch, ProvedToken(self._batch.sender, "")
        circumstances = Circumstances(batch.client_address, batch.classification)
        try:
            snapshot = await self._parts.refresher.knowing(token.public_id)
            model_request = ModelRequest(Caller(token, circumstances), model)
            deployment = model_request.admit(snapshot).deployment
        except Unavailable:
            return []
        except DomainError as error:
            return [Fault(error.code, error.message)]
        route, _ = find_route(batch.endpoint)
        if route is None or deployment.task not in route.endpoints:
            path = deployment_path(deployment.task, deployment.name)
            advice = f"use {path}." if path else "batches cannot use it."
            return [
                Fault(
                    "wrong_endpoint",
                    f"Deployment {deployment.name} is for {deployment.task}; {advice}",
                )
            ]
        return []

    async def _settle_interrupted(self) -> None:
        """Settle lines that ran when the previous process ended; rerun those that cost nothing."""
        for line in await self._desk.in_thread(lambda: lines_interrupted(self._claim)):
            await self._settle_line(line.number, line.request_id)

    async def _settle_line(self, number: int, request_id: str) -> None:
        if await self._lines.may_ask_again(self._batch, number, request_id):
            await self._desk.in_thread(lambda: line_give_back(claim=self._claim, number=number))
            return
        lost = LineResult(
            error="result_lost",
            message="The gateway stopped while answering; the request is billed. Send it again.",
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
        """Run the next line; return false if there is none."""
        try:
            claimed = await self._desk.in_thread(
                lambda: line_take(claim=self._claim, limit=self._limit)
            )
        except (FileNotFoundError, LineInvalid):
            self._end(_INPUT_GONE)
            return False
        except NoRoom as error:
            self._end(Fault(error.code, error.message))
            return False
        if claimed is None:
            return False
        await self._answer(claimed)
        return True

    async def _turn(self, holder: str, *, again: bool) -> bool:
        """Wait until the batch may start a line, and take a place on its deployment.

        Returns:
            False if no more lines may start.
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
        """Check for a cancellation while the batch waits."""
        states = Batch.objects.filter(pk=self._claim.batch_id).values_list("state", flat=True)
        if states.first() == BatchState.CANCELLING:
            self._ending = BatchState.CANCELLED

    async def _take_place(self, holder: str, *, again: bool) -> bool:
        snapshot = self._parts.refresher.snapshot
        entry = None if snapshot is None else snapshot.deployments.get(self._batch.model)
        if entry is None:
            return True  # The line's request is refused with the reason.
        if not await self._places.take(entry.id, holder, again=again):
            return False
        self._place_of[holder] = entry.id
        return True

    async def _leave(self, holder: str) -> None:
        if (deployment := self._place_of.pop(holder, None)) is None:
            return
        try:
            await self._places.leave(deployment, holder)
        except (redis.RedisError, OSError) as error:
            logger.warning("The place of %s was not released and will expire: %s", holder, error)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        except TimeoutError:
            return

    async def _answer(self, claimed: ClaimedLine) -> None:
        number = claimed.number
        outcome = await self._lines.ask(self._batch, claimed, self._stopping)
        result: LineResult | None = None
        if isinstance(outcome, LineResult):
            result = outcome
            self._count_refusal(outcome, for_good=outcome.error in _NOTHING_SERVES)
        elif isinstance(outcome, Stopped):
            self._end(Fault(outcome.error.code, outcome.error.message))
            result = outcome.result
        elif isinstance(outcome, Later):
            result = self._given_up(claimed, outcome)
            if result is None:
                self._wait(claimed, outcome)
            elif not outcome.engine_failed:
                self._count_refusal(result, for_good=True)
        if result is not None:
            line_result = result
            await self._insist(
                lambda: line_finish(claim=self._claim, number=number, result=line_result)
            )
            return
        failed = isinstance(outcome, Later) and outcome.engine_failed
        await self._insist(
            lambda: line_give_back(claim=self._claim, number=number, engine_failed=failed)
        )

    def _given_up(self, claimed: ClaimedLine, later: Later) -> LineResult | None:
        """Return the result of a line that will not be retried; None if it will."""
        if later.engine_failed:
            return later.result if claimed.engine_failures + 1 >= ENGINE_TRIES else None
        late = time.time() + later.seconds > self._batch.expires_at.timestamp()
        return later.result if late else None

    def _count_refusal(self, result: LineResult, *, for_good: bool) -> None:
        """End the batch after `REFUSALS_MAX` lines in a row were refused `for_good`: nothing serves
        them, or a budget has no room before the batch's end."""
        self._refusals = self._refusals + 1 if for_good else 0
        if self._refusals >= REFUSALS_MAX and self._ending is None:
            message = f"{self._refusals} requests in a row were refused. {result.message}"
            self._end(Fault(result.error, message))

    async def _insist(self, step: Callable[[], None]) -> None:
        """Run `step`, waiting for the database if needed, so that a billed answer is not lost."""
        until = time.monotonic() + LEASE.total_seconds()
        while True:
            try:
                await self._desk.in_thread(step)
                return
            except Unavailable:
                if time.monotonic() > until or self._stopping.is_set():
                    raise
                await asyncio.sleep(_LOOK_S)

    def _wait(self, claimed: ClaimedLine, later: Later) -> None:
        """Pause the batch until this line may run."""
        seconds = later.seconds
        if later.engine_failed:
            seconds = max(seconds, _ENGINE_PAUSE_S * 2**claimed.engine_failures)
        seconds = min(max(seconds, 0.1), _LONGEST_WAIT_S)
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _end(self, fault: Fault) -> None:
        """End the batch as failed; its files contain the lines that ran."""
        self._ending, self._faults = BatchState.FAILED, (fault,)
