"""Run one admitted request: reserve, publish, answer, and settle exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar, cast

import redis
from django.conf import settings

from assay.gateway.access.admission import Admitted, ModelRequest, RunningRequest
from assay.gateway.access.call import CLIENT_GONE, Call
from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.http.asgi import ClientGone, Headers, Receive, Send, encode, respond
from assay.gateway.http.errors import (
    DeadlinePassed,
    DeadlineUnreachable,
    EngineFailed,
    NoUsableKey,
    ReplyForged,
    error_event,
)
from assay.gateway.monitoring.tallies import count_use
from assay.gateway.quota.ledger import Settlement
from assay.gateway.quota.quotas import QueueFull, QuotaStopped
from assay.gateway.run import events
from assay.gateway.run.affinity import PATIENCE_S, Place
from assay.gateway.run.media import STORED_WITHIN_S, RequestMedia, least_units
from assay.gateway.run.parts import Parts
from assay.gateway.run.reply_streams import Cut, Inbox, watch_client
from assay.gateway.run.routing import may_fall_back
from assay.gateway.run.time_limits import TimeLimits, Timer
from governance.errors import DomainError, QuotaExceeded, Unavailable
from governance.quotas.prices import Tariff
from governance.quotas.wire import Amount, Limit, Queued
from governance.usage.records import UsageEntry
from registry.catalog import is_own
from registry.catalog.endpoints import Choice, Plan, Rendered, StreamRenderer, dumps
from workers.celery_message import inference_message
from workers.request_logs import about
from workers.sealing import GIVEN_BACK, NOT_ADDRESSED, ReplyReader
from workers.wire import (
    REPLY_TTL_S,
    Delta,
    Done,
    InferenceRequest,
    deployment_queue,
    replica_queue,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")
KEEPALIVE_S = 10.0
# In seconds: for a worker to report the usage of a canceled request, to write the answer after the
# deadline, and to write the error of a request that is ended early.
_LAST_WORD_S, _WRITE_S, _CUT_S = 2.0, 5.0, 1.0
# Maximum number of times that a request goes to other workers because its own are gone.
_HANDOVERS = 3


class Execution:
    """Runs `plan` for `call`. Call `run` once, with no await after `model_request` was admitted."""

    def __init__(
        self,
        parts: Parts,
        call: Call,
        plan: Plan,
        model_request: ModelRequest,
        admitted: Admitted,
        media: RequestMedia,
    ) -> None:
        self._parts = parts
        self._call = call
        self._plan = plan
        self._model_request = model_request
        self.admit(admitted)
        self._limit: asyncio.Timeout | None = None
        self._timer: Timer
        self._cut_by: DomainError | None = None
        self._completion_tokens = 0
        self._media = media
        self._inputs: dict[str, Any] = {}
        # Maximum use, charged if the actual use is unknown.
        self._units = plan.units or plan.tokens
        self._quota_headers: Headers = []
        self._abandoned, self._handed_over = False, 0
        # Time at which the caller stops waiting, in seconds since the epoch.
        self._deadline = 0.0
        self._place: Place | None = None
        self._reader: ReplyReader | None = None
        # Limits and prices by which the request has a reservation.
        self._reserved: tuple[tuple[Limit, ...], Tariff] | None = None
        self._running: RunningRequest
        self._wire_id = call.request_id
        self._captured = parts.request_log.begin(call, plan)

    def admit(self, admitted: Admitted) -> None:
        """Set the key and deployment that the request runs with."""
        self._call.admit(admitted)
        self._key, self._deployment = admitted.key, admitted.deployment
        self._admitted = admitted
        # Keys without a department take turns as one.
        self._department = admitted.key.department or "-"

    async def run(self, receive: Receive, send: Send) -> None:
        """Answer on `send`.

        Raises:
            DomainError: it was refused, or failed before a byte of the answer was sent.
            ClientGone: the client hung up; its use is being settled.
        """
        inbox = self._parts.replies.open(self._wire_id)
        self._running = RunningRequest(
            self._model_request, self._deployment.id, lambda error: self._cut(inbox, error)
        )
        # Before any await, so that no change of a key is missed.
        self._parts.running.enter(self._running)
        self._enter()
        try:
            await self._run(inbox, receive, send)
        finally:
            self._parts.running.leave(self._running)
            self._parts.affinity.leave(self._place)
            self._leave(answered=self._call.done is not None and self._call.outcome == "ok")
            if not self._abandoned:
                self._parts.replies.close(self._wire_id)

    def _enter(self) -> None:
        """Count the request as one of its deployment."""
        self._parts.paces.begin(self._deployment.id, self._department)
        self._parts.quotas.backlogs.begin(deployment_queue(self._deployment.id))

    def _leave(self, *, answered: bool) -> None:
        self._parts.paces.end(self._deployment.id, self._department, answered=answered)
        self._parts.quotas.backlogs.end(deployment_queue(self._deployment.id))

    async def check_room(self) -> None:
        """Raise if a limit or the queue has no room for the request now; charge nothing.

        Raises:
            QuotaStopped, QueueFull, Unavailable: as the reservation.
        """
        await self._parts.quotas.check_room(
            deployment=self._deployment.name,
            limits=self._limits(),
            amount=self._most(),
            queued=self._queue(self._deployment),
        )

    def _limits(self) -> tuple[Limit, ...]:
        return self._key.limits + self._deployment.limits_for(self._key.department)

    def _cut(self, inbox: Inbox, error: DomainError) -> None:
        self._cut_by = error
        inbox.put_nowait(Cut(error))
        if self._limit is not None and not self._limit.expired():
            # A client that does not read may delay the end only this long.
            self._limit.reschedule(asyncio.get_running_loop().time() + _CUT_S)

    async def _run(self, inbox: Inbox, receive: Receive, send: Send) -> None:
        limits = TimeLimits.of(self._deployment, streams=self._plan.stream)
        timeout_s = limits.total_s
        await self._begin(inbox, timeout_s)
        self._timer = Timer(limits, self._deployment.name, inbox)
        watcher = asyncio.create_task(watch_client(receive, inbox))
        end = ("failed", 500, "The gateway failed or was stopped.")
        try:
            async with asyncio.timeout(timeout_s + _WRITE_S) as self._limit:
                await self._answer(inbox, send)
        except (ClientGone, TimeoutError):
            gone = "The client closed the connection or stopped reading."
            end = ("canceled", CLIENT_GONE, self._cut_by.message if self._cut_by else gone)
            raise ClientGone from None
        finally:
            self._limit = None
            self._timer.cancel()
            watcher.cancel()
            if not self._call.recorded:
                # Cancel the work and charge its use.
                self._call.outcome, self._call.status, reason = end
                self._abandon(inbox, end[0], reason)
            # The ledger has no record of a request that its worker refused.
            if self._captured is not None and self._call.outcome != "refused":
                self._captured.inputs = self._inputs
                self._parts.request_log.put(self._captured)

    async def _begin(self, inbox: Inbox, timeout_s: float) -> None:
        """Reserve the request and send it to the deployment's workers.

        Raises:
            DomainError: a limit or the queue has no room, or a file is refused; nothing is charged.
        """
        self._check_pace(timeout_s)
        if self._has_files():
            await self._reserve_with_media(timeout_s)
            return
        self._inputs = self._plan.inputs.to_wire()
        self._deadline = time.time() + timeout_s
        await self._reserve(self._most(), timeout_s, self._queued(self._deployment))

    def _has_files(self) -> bool:
        return self._media.expected and self._media.has_files(self._plan)

    def _check_pace(self, timeout_s: float) -> None:
        """Raise DeadlineUnreachable if the requests that wait leave no time to answer this one."""
        deployment = self._deployment
        expected_s = self._parts.paces.expected_s(
            deployment.id, self._department, deployment.queue_weights
        )
        if expected_s > timeout_s:
            raise DeadlineUnreachable(
                f"Deployment {deployment.name} would need {expected_s:.0f} s to answer, with "
                f"the requests that wait; the limit is {timeout_s:g} s. Nothing was charged.",
                retry_after=math.ceil(expected_s - timeout_s),
            )

    async def _reserve(
        self, amount: Amount, lifetime_s: float, queued: Queued, *, more: bool = False
    ) -> None:
        try:
            reservation = await self._parts.quotas.reserve(
                entry=self._admission(),
                limits=self._limits(),
                amount=amount,
                lifetime_s=lifetime_s,
                queued=queued,
                more=more,
            )
        except QueueFull:
            raise
        except Unavailable:
            # Redis may have made the reservation although no answer arrived.
            self._parts.ledger.spawn(self._withdraw(self._cancel()))
            raise
        except asyncio.CancelledError:
            self._parts.ledger.spawn(self._cancel())
            raise
        self._reserved = self._limits(), self._deployment.tariff
        self._quota_headers = reservation.headers
        self._call.shadowed = [*dict.fromkeys([*self._call.shadowed, *reservation.shadowed])]
        self._watch_replica(queued)
        self._call.began_ms = reservation.at_ms - self._call.elapsed_ms
        if reservation.at is not None:
            # So that ledger and counters charge it to the same day and month.
            self._call.occurred_at = reservation.at

    async def _reserve_with_media(self, timeout_s: float) -> None:
        """Reserve the minimum cost, decode the files, and reserve the rest.

        Files are only decoded for callers who may send requests now, and every attempt counts, so
        that limits on requests also limit the decoding of files that are then refused.
        """
        quotas, request_id = self._parts.quotas, self._call.request_id
        self._units = least_units(self._plan, self._deployment.unit)
        least = self._most()
        await self._reserve(least, timeout_s + STORED_WITHIN_S, self._queue(self._deployment))
        try:
            self._inputs, self._units = await self._media.store(
                self._plan, self._deployment.unit, self._deployment.id
            )
            self._deadline = time.time() + timeout_s
            queued = self._queued(self._deployment)
            await self._reserve(self._most().beyond(least), timeout_s, queued, more=True)
        except BaseException as error:
            # A request that a busy gateway refused does not count. After `Unavailable` from the
            # quotas it is already withdrawn; doing so twice is harmless.
            stopped = isinstance(error, QuotaStopped)
            busy = isinstance(error, (Unavailable, QuotaExceeded)) and not stopped
            withdrawal = quotas.withdraw(request_id, counts=not busy)
            if isinstance(error, DomainError) and may_fall_back(error):
                # Another target may take the request, and would reserve it under the same ID.
                await withdrawal
            else:
                self._parts.ledger.spawn(withdrawal)
            raise

    def _admission(self) -> UsageEntry:
        """Return the ledger's entry in case this process ends before it settles the request."""
        charged = not self._plan.counts_only
        return self._call.entry(
            "failed",
            reason="The gateway stopped while answering"
            + ("; the input is charged by estimate." if charged else "."),
            prompt_tokens=self._plan.prompt_tokens if charged else 0,
            units=self._units if charged else 0,
        )

    def _most(self) -> Amount:
        """Return the maximum use of the request; for device time, the expected use."""
        plan, deployment = self._plan, self._deployment
        device_ms = self._parts.device_times.expect(deployment.name, self._units)
        micro = deployment.tariff.cost(
            prompt_tokens=plan.prompt_tokens,
            completion_tokens=max(0, plan.tokens - plan.prompt_tokens),
            device_ms=device_ms,
            unit=deployment.unit,
            units=self._units,
        )
        return Amount(self._units, micro, device_ms, deployment.unit)

    def _cancel(self) -> Coroutine[Any, Any, None]:
        return self._parts.cancellations.publish(self._wire_id)

    async def _withdraw(self, canceling: Awaitable[None]) -> None:
        await canceling
        await self._parts.quotas.withdraw(self._call.request_id)

    def _watch_replica(self, queued: Queued) -> None:
        """Watch a request that was sent to one replica, if it was."""
        if self._place is not None and self._place.worker and queued.message:
            self._parts.ledger.spawn(self._take_over(queued, self._place.worker))

    async def _take_over(self, queued: Queued, worker: str) -> None:
        """Let any replica answer the request if the chosen one does not begin it soon."""
        reader, quotas = self._reader, self._parts.quotas
        with contextlib.suppress(redis.RedisError, OSError):
            # In case this process ends before it takes the message back from a dead worker.
            await quotas.expire(queued.queue, REPLY_TTL_S)
        await asyncio.sleep(PATIENCE_S)
        if reader is not None and len(reader.holders) == 1:
            return  # It has begun.
        taken = False
        shared = replace(self._queue(self._deployment), message=queued.message)
        while True:
            try:
                taken = taken or await quotas.take_back(queued)
                if taken:
                    self._parts.affinity.avoid(worker)
                    # With another reader, the request was sealed again, maybe for another target.
                    if not self._call.recorded and self._reader is reader:
                        await quotas.send_again(shared)
                return
            except (redis.RedisError, OSError) as error:
                if self._call.recorded:
                    return
                logger.warning(
                    "Request %s cannot be moved to another replica yet: %s",
                    self._call.request_id,
                    error,
                    extra=about(self._call.request_id),
                )
                await asyncio.sleep(PATIENCE_S)

    def _queued(self, deployment: DeploymentEntry, *, again: bool = False) -> Queued:
        """Seal the request for the deployment's workers, start to expect its replies, and return
        the message for the queue: that of all replicas, or of the one that knows the prompt's
        beginning.
        """
        request = self._request(deployment)
        sealed, reader = self._parts.seals.seal(request, deployment.workers)
        if deployment.workers and not reader.holders:
            raise NoUsableKey(f"No worker of deployment {deployment.name} has a usable key.")
        self._parts.replies.expect(self._wire_id, reader, deployment.realms)
        self._reader = reader
        queued = replace(self._queue(deployment), message=inference_message(request, sealed))
        if again:
            return queued
        self._call.sent()
        if queued.queue in self._parts.quotas.backlogs:
            # Departments take turns in the shared queue alone.
            return queued
        self._place = self._parts.affinity.enter(
            deployment, reader.holders, request.scope, self._inputs
        )
        if self._place is None or not self._place.worker:
            return queued
        own = replica_queue(queued.queue, self._place.worker)
        return replace(queued, queue=own, department="")

    def _request(self, deployment: DeploymentEntry) -> InferenceRequest:
        return InferenceRequest(
            request_id=self._wire_id,
            deployment_id=deployment.id,
            deployment=deployment.name,
            digest=deployment.digest,
            reply_stream=self._parts.replies.stream,
            inputs=self._inputs,
            options=self._plan.options.to_wire(),
            stream=self._plan.stream,
            enqueued_at=time.time(),
            deadline=self._deadline,
            expires_at=deployment.expires_at,
            idle_s=deployment.stream_idle_s if self._plan.stream else 0.0,
            units=self._units,
            scope="" if self._call.key is None else self._call.key.department or "",
            traceparent=self._call.traceparent,
        )

    def _queue(self, deployment: DeploymentEntry) -> Queued:
        return Queued(
            deployment_queue(deployment.id),
            b"",
            settings.GATEWAY_QUEUE_MAX,
            self._department,
            deployment.queue_weights.get(self._department, 1),
        )

    async def _answer(self, inbox: Inbox, send: Send) -> None:
        while True:
            try:
                await (self._stream if self._plan.stream else self._whole)(inbox, send)
            except DomainError as error:
                if await self._fall_back(error, inbox):
                    continue
                await self._end_with(error, inbox, send)
            return

    async def _fall_back(self, error: DomainError, inbox: Inbox) -> bool:
        """Send a request that failed to another target; return false if none takes it."""
        return False

    async def _end_with(self, error: DomainError, inbox: Inbox, send: Send) -> None:
        """Settle a failed request, and send its error if the answer has begun. Otherwise raise
        it."""
        if not self._call.recorded:
            await self._settle_failure(error, inbox)
        if not self._call.responding:
            raise error
        event = error_event(error, self._call.endpoint)
        await send({"type": "http.response.body", "body": event})

    async def _whole(self, inbox: Inbox, send: Send) -> None:
        choices: dict[int, Choice] = {}
        while isinstance(event := await self._take(inbox), Delta):
            choices.setdefault(event.index, Choice(event.index)).add(events.piece(event))
        answer = events.answer_of(event, choices)
        answer = replace(answer, results=await self._media.results(answer.results))
        # Before the settlement, because rendering may refuse the request.
        rendered = await self._rendered(self._plan.renderer.whole, answer)
        units = await self._settle(event)
        if not isinstance(rendered, Rendered):
            rendered = Rendered(encode(dumps(rendered)), "application/json")
        self._call.responding = True
        used = (b"x-assay-units", f"{units} {self._call.unit}".encode())
        headers = [*self._call.headers(), *self._quota_headers, used, *events.cut_headers(answer)]
        await respond(send, 200, rendered.body, headers, rendered.content_type.encode())

    async def _stream(self, inbox: Inbox, send: Send) -> None:
        renderer = cast(StreamRenderer, self._plan.renderer)
        event = await self._take_or_wait(inbox)
        self._call.responding = True
        headers = events.STREAM_HEADERS + self._call.headers() + self._quota_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        pending = await self._rendered(renderer.opening)
        while not isinstance(event, Done):
            if event is None:
                pending += ": keepalive\n\n"
            elif event.text or event.call or event.scores or event.finish:
                pending += await self._rendered(renderer.delta, events.piece(event))
            if pending and inbox.empty():
                chunk, pending = encode(pending), ""
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            event = await self._take_or_wait(inbox)
        await self._settle(event)
        body = encode(pending + await self._rendered(renderer.closing, events.answer_of(event)))
        await send({"type": "http.response.body", "body": body})

    async def _rendered(self, render: Callable[..., T], *arguments: Any) -> T:
        """Return the answer as rendered by the task. Raises as the renderer, and Unavailable."""
        task = self._deployment.task
        if is_own(task):
            return render(*arguments)
        return await self._parts.plug_ins.call(task, render, *arguments)

    async def _take_or_wait(self, inbox: Inbox) -> Delta | Done | None:
        """Return the next event as `_take` does, or None after `KEEPALIVE_S` seconds."""
        if not inbox.empty():
            return await self._take(inbox)
        try:
            async with asyncio.timeout(KEEPALIVE_S):
                return await self._take(inbox)
        except TimeoutError:
            return None

    async def _take(self, inbox: Inbox) -> Delta | Done:
        """Return the next event of the answer. Raises as `part_of_answer`."""
        event = await inbox.get()
        given_back = event is GIVEN_BACK
        if (given_back or event is NOT_ADDRESSED) and await self._hand_over(given_back):
            return await self._take(inbox)
        part = events.part_of_answer(event, self._deployment.name)
        if isinstance(part, Delta):
            self._completion_tokens += part.tokens
            self._timer.token()
            if self._captured is not None:
                self._captured.add(part)
            if self._plan.stream:
                self._call.arrived(part.index, part.tokens)
        return part

    async def _hand_over(self, given_back: bool) -> bool:
        """Send the request to the deployment's current workers; return true if it was sent.

        Used when a worker that the request was not sealed for has read it (it is sent once that
        worker is known), or when a worker stopped reading the queue. The reservation stays.
        """
        self._handed_over += 1
        if self._handed_over > _HANDOVERS:
            return False
        entry = await self._parts.refresher.handed_over(self._deployment, at_once=given_back)
        if entry is None:
            return False
        with contextlib.suppress(redis.RedisError, OSError):
            await self._parts.quotas.send_again(self._queued(entry, again=True))
            return True
        return False

    async def _settle(self, done: Done) -> int:
        """Charge a finished answer before its last byte is sent; return the units that it used."""
        self._call.recorded = True
        return await self._charge("ok", done)

    async def _settle_failure(self, error: DomainError, inbox: Inbox) -> None:
        self._call.outcome, self._call.status = "failed", error.status
        if isinstance(error, DeadlinePassed):
            self._abandon(inbox, "failed", error.message)
            return
        if error is self._cut_by:
            self._call.outcome = "cut"
            self._abandon(inbox, "canceled", error.message)
            return
        self._call.recorded = True
        if isinstance(error, ReplyForged):
            self._call.outcome = error.code
            await self._cancel()
        used = error.used if isinstance(error, EngineFailed) else None
        if used is not None and self._call.responding:
            # The caller has received this part of the answer.
            await self._charge("failed", used, error.message)
            return
        refused = error.status < 500
        if refused:
            # Not the worker's code: a compromised worker could make up any number of them.
            self._call.outcome = "refused"
        prompt_tokens = self._plan.prompt_tokens if self._completion_tokens else 0
        entry = self._call.entry(
            error.code if refused or isinstance(error, ReplyForged) else "failed",
            reason=error.message,
            ran=not refused,
            prompt_tokens=prompt_tokens,
            completion_tokens=self._completion_tokens,
            units=self._units if self._completion_tokens else 0,
        )
        # A refusal costs nothing, but units computed until then count on limits per minute.
        self._call.computed = entry.units if used is None else used.units
        await self._parts.ledger.settle(Settlement(entry, units=self._call.computed))
        self._call.settled = entry

    async def _charge(self, outcome: str, done: Done, reason: str = "") -> int:
        if self._plan.counts_only:
            done = replace(done, prompt_tokens=0, completion_tokens=0, units=0)
        entry = self._call.entry(
            outcome,
            reason=reason,
            prompt_tokens=done.prompt_tokens,
            completion_tokens=done.completion_tokens,
            queue_ms=done.queue_ms,
            connect_ms=done.connect_ms or None,
            device_ms=done.device_ms,
            units=done.units,
        )
        self._call.done = done
        count_use(entry)
        self._parts.device_times.learn(self._deployment.name, entry.units, done.device_ms)
        await self._parts.ledger.settle(Settlement(entry))
        self._call.settled = entry
        return entry.units

    def _abandon(self, inbox: Inbox, outcome: str, reason: str) -> None:
        self._call.recorded = self._abandoned = True
        self._parts.ledger.spawn(self._call_off(inbox, outcome, reason))

    async def _call_off(self, inbox: Inbox, outcome: str, reason: str) -> None:
        """Cancel the request in the engine, wait for its usage, and settle it.

        If the worker does not answer, the estimate of the prompt and the received tokens are
        charged; in another unit, the maximum use.
        """
        await self._cancel()
        last: Done | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                while last is None:
                    event = await inbox.get()
                    if isinstance(event, Delta):
                        self._completion_tokens += event.tokens
                    else:
                        last = events.last_word(event, self._completion_tokens)
        self._parts.replies.close(self._wire_id)
        if last is None:
            sent, completed = self._plan.prompt_tokens, self._completion_tokens
            last = Done("canceled", sent, completed, units=self._units)
        await self._charge(outcome, last, reason)
