"""The engine of hosted models. It sends requests to a provider and returns the answers as events.

All hosted engines of a process share one event loop (`EgressLoop`), which holds thousands of open
answers without a thread for each. `submit` encodes the body in the caller's thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import cast

from registry.catalog.declaration import Unit
from registry.catalog.hosted import HOSTED_FILE, HostedDescription, Operation, WireShape
from registry.catalog.requests import printable
from workers.egress.connections import Answer, ProviderFailed
from workers.egress.credentials import Credentials
from workers.egress.loop import EgressLoop
from workers.engines.hosted import (
    anthropic,
    embeddings,
    gemini,
    images,
    openai,
    responses,
    speech,
    transcription,
)
from workers.engines.hosted.events import EventSplitter
from workers.engines.hosted.exchange import read_whole, send
from workers.engines.hosted.failures import incomplete
from workers.engines.hosted.shapes import (
    MAX_ANSWER,
    Call,
    Reader,
    Shape,
    estimate_prompt,
)
from workers.engines.protocol import EngineRequest, EngineStopped, RequestRefused, Sink
from workers.request_logs import about
from workers.wire import Delta, Done, EngineLoad, Failed

logger = logging.getLogger(__name__)
_CLOSE_S = 10.0
# Pause between two log lines about answers of another model.
_REMIND_S = 60.0
_STATED_MAX = 10
# Code of the failure of a request whose answer states another model.
DIFFERS = "provider_differs"

SHAPES: dict[tuple[WireShape, Operation], Shape] = {
    (WireShape.OPENAI, Operation.CHAT): cast(Shape, openai),
    (WireShape.ANTHROPIC, Operation.CHAT): cast(Shape, anthropic),
    (WireShape.GEMINI, Operation.CHAT): cast(Shape, gemini),
    (WireShape.OPENAI, Operation.RESPONSES): cast(Shape, responses),
    (WireShape.OPENAI, Operation.EMBEDDINGS): cast(Shape, embeddings),
    (WireShape.GEMINI, Operation.EMBEDDINGS): cast(Shape, embeddings),
    (WireShape.OPENAI, Operation.TRANSCRIPTION): cast(Shape, transcription),
    (WireShape.OPENAI, Operation.SPEECH): cast(Shape, speech),
    (WireShape.OPENAI, Operation.IMAGES): cast(Shape, images),
}


def shape_of(description: HostedDescription) -> Shape:
    """Return the wire shape of a description's operation."""
    return SHAPES[description.shape, description.operation]


class _Work:
    """One request that runs."""

    def __init__(self, request: EngineRequest, sink: Sink, call: Call, reader: Reader) -> None:
        self.request = request
        self.call = call
        self.body = call.encoded()
        self.reader = reader
        self.task: asyncio.Task[None] | None = None
        self.running = self.sent = self.canceled = False
        self.began = time.monotonic()
        self.first: float | None = None
        self.connect_s = 0.0
        self._sink = sink

    def cancel(self) -> None:
        """End the exchange."""
        self.canceled = True
        # A task that is canceled before it runs would end without its last event.
        if self.running and self.task is not None:
            self.task.cancel()

    def send(self, deltas: Sequence[Delta]) -> None:
        """Pass pieces on."""
        if deltas and self.first is None:
            self.first = time.monotonic()
        for delta in deltas:
            self._sink(delta)

    def end(self, event: Done | Failed) -> None:
        """Pass the last event on."""
        try:
            self._sink(event)
        except Exception:
            name = self.request.request_id
            logger.exception("The end of request %s was lost", name, extra=about(name))

    def done(self, finish: str) -> Done:
        """Return the last event of an answer, with the usage that it stated or an estimate."""
        state = self.reader.state
        prompt, completion, estimated = self.used()
        now, first = time.monotonic(), self.first
        return Done(
            finish,
            prompt,
            completion,
            results=state.results,
            units=prompt + completion if state.units is None else state.units,
            stop=state.stop if getattr(self.request.options, "name_stop", False) else "",
            prefill_ms=0 if first is None else round((first - self.began) * 1000),
            decode_ms=0 if first is None else round((now - first) * 1000),
            connect_ms=round(self.connect_s * 1000),
            estimated=estimated,
        )

    def used(self) -> tuple[int, int, bool]:
        """Return the tokens of prompt and answer, and whether one of them is an estimate."""
        state = self.reader.state
        prompt, completion = state.prompt_tokens, state.completion_tokens
        if state.units is not None:
            return prompt or 0, completion or 0, False
        estimated = prompt is None or completion is None
        if prompt is None:
            prompt = estimate_prompt(self.request.inputs)
        if completion is None or not state.complete:
            # An answer that broke off may have stated the beginning of its usage.
            completion, estimated = max(completion or 0, state.estimated_tokens), True
        return prompt, completion, estimated

    def failed(self, error: RequestRefused) -> Failed:
        """Return the last event of a failure, with the usage if text was passed on."""
        state = self.reader.state
        retry = error.retry_after_s if isinstance(error, ProviderFailed) else 0
        if not state.characters:
            return Failed(error.code, str(error), error.status, retry_after_s=retry)
        prompt, completion, estimated = self.used()
        return Failed(
            error.code,
            str(error),
            error.status,
            prompt,
            completion,
            units=prompt + completion,
            estimated=estimated,
            retry_after_s=retry,
        )


class HostedEngine:
    """One model of a provider; see `workers.engines.protocol.Engine`.

    Args:
        folder: The verified file with the approved description.
        loop: Event loop and connections of this process.
        credentials: Secrets of departments.
        deployment_id: The deployment that uses the engine, and its credential.
        job_id: The evaluation that uses it instead of a deployment.
        on_stated: Gets the model and the fingerprint of each answer, in the event loop's thread.

    Raises:
        InvalidInput: the description is invalid.
        ProviderFailed: its host may not be reached by its scheme.
    """

    def __init__(
        self,
        folder: Path,
        *,
        loop: EgressLoop,
        credentials: Credentials,
        deployment_id: int = 0,
        job_id: str = "",
        on_stated: Callable[[str, str], None] = lambda model, fingerprint: None,
    ) -> None:
        self.description = HostedDescription.read((folder / HOSTED_FILE).read_bytes())
        self._names, self._fingerprint = self.description.names, self.description.fingerprint
        self._shape = shape_of(self.description)
        self._loop = loop
        self._credentials = credentials
        self._deployment_id, self._job_id = deployment_id, job_id
        self._on_stated = on_stated
        # Pairs of model and fingerprint in answers, at most `_STATED_MAX` of them.
        self.stated: set[tuple[str, str]] = set()
        self._route = loop.egress.route(self.description.base_url)
        self._rules = loop.egress.rules
        self._lock = threading.Lock()
        self._works: dict[str, _Work] = {}
        self._closing = False
        self._differing, self._reminded_at = 0, -_REMIND_S

    @property
    def fault(self) -> str:
        """Return an empty text: a provider that fails does not make the description unusable."""
        return ""

    @property
    def working_s(self) -> float:
        """Return 0: each exchange has its own time limits."""
        return 0.0

    def current_load(self) -> EngineLoad:
        """Return the number of open requests."""
        return EngineLoad(running=len(self._works))

    def add_adapter(self, name: str, folder: Path) -> None:
        """Raise ValueError: hosted models take no adapters."""
        raise ValueError("Hosted models take no adapters.")

    def remove_adapter(self, name: str) -> None:
        """Raise ValueError: hosted models take no adapters."""
        raise ValueError("Hosted models take no adapters.")

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        """Send a request; its events reach `sink` from the event loop's thread.

        Raises:
            RequestRefused: the description does not permit the request, or the wire shape cannot
                express it.
        """
        if request.adapter is not None:
            raise RequestRefused("Hosted models take no adapters.", code="adapter_not_found")
        call = self._shape.call(
            self.description, request.inputs, request.options, stream=request.stream
        )
        reader = self._shape.reader(self.description, call)
        if self.description.rules.unit is not Unit.TOKENS:
            reader.state.units = request.units
        work = _Work(request, sink, call, reader)
        with self._lock:
            if self._closing:
                raise EngineStopped
            if request.request_id in self._works:
                raise RequestRefused(f"Request {request.request_id} is running already.")
            self._works[request.request_id] = work
        self._loop.call(self._begin, work)

    def cancel(self, request_id: str) -> None:
        """End a request and its connection; unknown and ended requests are ignored."""
        self._loop.call(self._end, request_id)

    def close(self) -> None:
        """Fail the running requests and wait for their ends."""
        with self._lock:
            self._closing = True
        over: Future[None] = self._loop.run(self._end_all())
        over.result(_CLOSE_S)

    def _begin(self, work: _Work) -> None:
        work.task = asyncio.get_running_loop().create_task(self._run(work))

    def _end(self, request_id: str) -> None:
        if (work := self._works.get(request_id)) is not None:
            work.cancel()

    async def _end_all(self) -> None:
        works = list(self._works.values())
        for work in works:
            work.cancel()
        await asyncio.gather(*(work.task for work in works if work.task is not None))

    async def _run(self, work: _Work) -> None:
        answer: Answer | None = None
        event: Done | Failed
        try:
            work.running = True
            if work.canceled or self._closing:
                raise asyncio.CancelledError
            async with asyncio.timeout(self._rules.total_s):
                answer = await self._send(work)
                event = await self._read(work, answer)
        except RequestRefused as error:
            event = work.failed(error)
        except TimeoutError:
            event = work.failed(_late("finish its answer", self._rules.total_s))
        except asyncio.CancelledError:
            if self._closing:
                event = work.failed(EngineStopped())
            else:
                event = work.done("canceled") if work.sent else Done("canceled", 0, 0)
        except Exception:
            name = work.request.request_id
            logger.exception("Request %s failed", name, extra=about(name))
            event = work.failed(
                RequestRefused("The engine failed; try again.", code="engine_error", status=500)
            )
        # From now on, a cancellation must not keep the last event from its sink.
        work.running = False
        try:
            if isinstance(event, Done) and event.results:
                # The sink writes files or seals many numbers, which would delay other answers.
                await asyncio.to_thread(work.end, event)
            else:
                work.end(event)
            if answer is not None and isinstance(event, Done) and event.finish_reason != "canceled":
                await answer.finish()
        finally:
            self._works.pop(work.request.request_id, None)
            if answer is not None:
                answer.close()

    async def _send(self, work: _Work) -> Answer:
        call, rules = work.call, self._rules
        credential = None
        if name := self.description.credential:
            credential = await self._credentials.get(
                name, host=self._route.host, deployment_id=self._deployment_id, job_id=self._job_id
            )
        within_s = rules.first_byte_s if call.stream else rules.total_s
        work.sent = True
        answer = await send(self._route, call, work.body, credential, within_s=within_s)
        work.connect_s = answer.connect_s
        return answer

    async def _read(self, work: _Work, answer: Answer) -> Done:
        """Pass an answer's pieces on; return its last event. Raises ProviderFailed."""
        state = work.reader.state
        # A provider may answer without a stream, above all with an error.
        if work.call.stream and answer.content_type != "application/json":
            await self._stream(work, answer)
        else:
            deltas = await read_whole(work.call, answer, work.reader)
            self._check(work)
            work.send(deltas)
        if not state.complete:
            raise incomplete()
        if not self.description.covers(state.model, state.fingerprint):
            raise self._differs(work)
        self._note(state.model, state.fingerprint)
        return work.done(state.finish[min(state.finish)])

    async def _stream(self, work: _Work, answer: Answer) -> None:
        splitter, reader, idle_s = EventSplitter(), work.reader, self._rules.idle_s
        now = asyncio.get_running_loop().time
        lines = 0
        try:
            async with asyncio.timeout(idle_s) as idle:
                while chunk := await answer.chunk(MAX_ANSWER):
                    for data in splitter.feed(chunk):
                        deltas = reader.event(data)
                        # Before the first text, so that no answer of another model begins.
                        self._check(work)
                        work.send(deltas)
                        if reader.state.ended:
                            return
                    if splitter.lines > lines:
                        lines = splitter.lines
                        idle.reschedule(now() + idle_s)
        except TimeoutError:
            raise _late("continue its answer", idle_s) from None

    def _check(self, work: _Work) -> None:
        """Raise ProviderFailed if an answer states another model or fingerprint."""
        state = work.reader.state
        if state.model and state.model not in self._names:
            raise self._differs(work)
        if self._fingerprint and state.fingerprint not in ("", self._fingerprint):
            raise self._differs(work)

    def _differs(self, work: _Work) -> ProviderFailed:
        """Record an answer of another model; return the failure of its request."""
        model, fingerprint = work.reader.state.model, work.reader.state.fingerprint
        self._note(model, fingerprint)
        if self._fingerprint and not fingerprint:
            words = f"{model or self.description.model} without a fingerprint"
        else:
            words = f"{model or self.description.model} {fingerprint}".rstrip()
        self._differing += 1
        if time.monotonic() - self._reminded_at >= _REMIND_S:
            self._reminded_at = time.monotonic()
            logger.warning(
                "%s answers as %r, which its description does not name; %d answers so far",
                f"Job {self._job_id}" if self._job_id else f"Deployment {self._deployment_id}",
                words,
                self._differing,
                extra=about(work.request.request_id),
            )
        return ProviderFailed(
            f"The provider answered as {printable(words, 200)}, which the approved description "
            "does not name.",
            code=DIFFERS,
        )

    def _note(self, model: str, fingerprint: str) -> None:
        if len(self.stated) < _STATED_MAX:
            self.stated.add((model, fingerprint))
        self._on_stated(model, fingerprint)


def _late(action: str, seconds: float) -> ProviderFailed:
    return ProviderFailed(
        f"The provider did not {action} within {seconds:g} seconds.",
        code="provider_timeout",
        status=504,
    )
