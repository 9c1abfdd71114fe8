"""One admitted request: reserve, publish, answer, settle once, whatever happens in between."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, cast

from django.conf import settings

from assay.gateway.call import Call
from assay.gateway.endpoints import Plan
from assay.gateway.errors import DeadlinePassed, EngineFailed, error_json
from assay.gateway.http import ClientGone, Headers, Receive, Send, respond
from assay.gateway.ledger import Settlement
from assay.gateway.metrics import TOKENS
from assay.gateway.rendering import GenerationRenderer, dumps, encode
from assay.gateway.replies import Inbox, Signal
from assay.gateway.snapshot import DeploymentEntry, KeyEntry
from governance.errors import DomainError, Unavailable
from workers.wire import Delta, Done, Failed, InferenceRequest

if TYPE_CHECKING:
    from assay.gateway.runtime import Runtime

KEEPALIVE_S = 10.0
# How long a cancelled request may take to say what it has used, in seconds.
_LAST_WORD_S = 2.0
# How much longer than its deadline an answer may take to be written, in seconds.
_WRITE_S = 5.0
_SSE_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Execution:
    """Runs `plan` for `call`. `run` is called once."""

    def __init__(
        self, runtime: Runtime, call: Call, plan: Plan, key: KeyEntry, deployment: DeploymentEntry
    ) -> None:
        self._runtime = runtime
        self._call = call
        self._plan = plan
        self._key = key
        self._deployment = deployment
        self._completion_tokens = 0
        self._quota_headers: Headers = []

    async def run(self, receive: Receive, send: Send) -> None:
        """Answer on `send`.

        Raises:
            DomainError: refused or failed before a byte of the answer was sent.
            ClientGone: the client hung up; what it used is being settled.
        """
        timeout_s = settings.GATEWAY_REQUEST_TIMEOUT_S
        reservation = await self._runtime.quotas.reserve(
            request_id=self._call.request_id,
            limits=self._key.limits,
            tokens=self._plan.tokens,
            lifetime_s=timeout_s,
        )
        self._quota_headers = reservation.headers
        inbox = self._runtime.replies.open(self._call.request_id)
        timer = asyncio.get_running_loop().call_later(timeout_s, inbox.put_nowait, Signal.DEADLINE)
        watcher = asyncio.create_task(_watch(receive, inbox))
        end = ("failed", "The gateway broke down or was stopped.")
        try:
            await self._publish(timeout_s)
            async with asyncio.timeout(timeout_s + _WRITE_S):
                await self._answer(inbox, send)
        except (ClientGone, TimeoutError):
            end = ("cancelled", "The client closed the connection or stopped reading.")
            raise ClientGone from None
        finally:
            timer.cancel()
            watcher.cancel()
            if self._call.recorded:
                self._runtime.replies.close(self._call.request_id)
            else:
                # The work is called off, and what it used is paid for.
                self._call.outcome = end[0]
                self._abandon(inbox, *end)

    async def _publish(self, timeout_s: float) -> None:
        call, now = self._call, time.time()
        request = InferenceRequest(
            request_id=call.request_id,
            deployment_id=self._deployment.id,
            deployment=self._deployment.name,
            digest=self._deployment.digest,
            task=self._deployment.task,
            reply_stream=self._runtime.replies.stream,
            inputs=self._plan.inputs,
            sampling=self._plan.sampling,
            stream=self._plan.stream,
            enqueued_at=now,
            deadline=now + timeout_s,
            expires_at=self._deployment.expires_at,
        )
        try:
            await self._runtime.dispatcher.publish(request)
        except Unavailable as error:
            call.recorded = True
            await self._runtime.dispatcher.cancel(call.request_id)
            entry = call.entry(error.code, reason=error.message, ran=False)
            await self._runtime.ledger.settle(Settlement(entry, refund=True))
            raise

    async def _answer(self, inbox: Inbox, send: Send) -> None:
        try:
            if self._plan.stream:
                await self._stream(inbox, send)
            else:
                await self._whole(inbox, send)
        except DomainError as error:
            if not self._call.recorded:
                await self._settle_failure(error, inbox)
            if not self._call.responding:
                raise
            event = f"data: {error_json(error).decode()}\n\n"
            await send({"type": "http.response.body", "body": encode(event)})

    async def _whole(self, inbox: Inbox, send: Send) -> None:
        texts: list[str] = []
        while isinstance(event := await self._take(inbox), Delta):
            texts.append(event.text)
        await self._settle(event)
        body = encode(dumps(self._plan.renderer.whole("".join(texts), event)))
        self._call.responding = True
        await respond(send, 200, body, self._call.headers() + self._quota_headers)

    async def _stream(self, inbox: Inbox, send: Send) -> None:
        renderer = cast(GenerationRenderer, self._plan.renderer)
        event = await self._take_or_wait(inbox)
        self._call.responding = True
        headers = _SSE_HEADERS + self._call.headers() + self._quota_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        pending = renderer.opening()
        while not isinstance(event, Done):
            if event is None:
                pending += ": keepalive\n\n"
            elif event.text:
                pending += renderer.delta(event.text)
            if pending and inbox.empty():
                chunk, pending = encode(pending), ""
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            event = await self._take_or_wait(inbox)
        await self._settle(event)
        body = encode(pending + renderer.closing(event))
        await send({"type": "http.response.body", "body": body})

    async def _take_or_wait(self, inbox: Inbox) -> Delta | Done | None:
        """`_take`, or None after `KEEPALIVE_S` seconds without an event."""
        if not inbox.empty():
            return await self._take(inbox)
        try:
            async with asyncio.timeout(KEEPALIVE_S):
                return await self._take(inbox)
        except TimeoutError:
            return None

    async def _take(self, inbox: Inbox) -> Delta | Done:
        """The next event that carries the answer on.

        Raises:
            ClientGone: the client hung up.
            EngineFailed, DeadlinePassed: there is no answer.
        """
        event = await inbox.get()
        if isinstance(event, Delta):
            self._completion_tokens += event.tokens
            return event
        if isinstance(event, Done):
            if event.finish_reason == "cancelled":
                raise EngineFailed(
                    f"Deployment {self._deployment.name} was stopped while it answered.",
                    code="engine_stopped",
                    status=503,
                )
            return event
        if isinstance(event, Failed):
            raise EngineFailed(event.message, code=event.code, status=event.status)
        if event is Signal.DEADLINE:
            raise DeadlinePassed(
                f"Deployment {self._deployment.name} did not answer within "
                f"{settings.GATEWAY_REQUEST_TIMEOUT_S} s; the request was cancelled."
            )
        raise ClientGone

    async def _settle(self, done: Done) -> None:
        """The good end. Before the last byte leaves, so that an answer is never unaccounted."""
        self._call.recorded = True
        await self._charge("ok", done)

    async def _settle_failure(self, error: DomainError, inbox: Inbox) -> None:
        self._call.outcome = "failed"
        if isinstance(error, DeadlinePassed):
            self._abandon(inbox, "failed", error.message)
            return
        self._call.recorded = True
        refused = error.status < 500
        prompt_tokens = self._plan.prompt_tokens if self._completion_tokens else 0
        entry = self._call.entry(
            error.code if refused else "failed",
            reason=error.message,
            ran=not refused,
            prompt_tokens=prompt_tokens,
            completion_tokens=self._completion_tokens,
        )
        await self._runtime.ledger.settle(
            Settlement(entry, tokens=prompt_tokens + self._completion_tokens)
        )

    async def _charge(self, outcome: str, done: Done, reason: str = "") -> None:
        TOKENS.labels("prompt").inc(done.prompt_tokens)
        TOKENS.labels("completion").inc(done.completion_tokens)
        entry = self._call.entry(
            outcome,
            reason=reason,
            prompt_tokens=done.prompt_tokens,
            completion_tokens=done.completion_tokens,
            queue_ms=done.queue_ms,
        )
        tokens = done.prompt_tokens + done.completion_tokens
        await self._runtime.ledger.settle(Settlement(entry, tokens=tokens))

    def _abandon(self, inbox: Inbox, outcome: str, reason: str) -> None:
        self._call.recorded = True
        self._runtime.ledger.spawn(self._call_off(inbox, outcome, reason))

    async def _call_off(self, inbox: Inbox, outcome: str, reason: str) -> None:
        """Cancel in the engine, hear what was used, settle.

        A worker that keeps silent leaves the prompt's estimate and the tokens that have arrived.
        """
        await self._runtime.dispatcher.cancel(self._call.request_id)
        last: Done | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                while last is None:
                    event = await inbox.get()
                    if isinstance(event, Delta):
                        self._completion_tokens += event.tokens
                    elif isinstance(event, Done):
                        last = event
                    elif isinstance(event, Failed):
                        last = Done("cancelled", 0, self._completion_tokens)
        self._runtime.replies.close(self._call.request_id)
        if last is None:
            last = Done("cancelled", self._plan.prompt_tokens, self._completion_tokens)
        await self._charge(outcome, last, reason)


async def _watch(receive: Receive, inbox: Inbox) -> None:
    """Put the client's hanging up among the events."""
    while (await receive())["type"] != "http.disconnect":
        pass
    inbox.put_nowait(Signal.DISCONNECTED)
