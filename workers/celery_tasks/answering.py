"""Answer requests: check that each may run on the loaded version, run it, and send its events."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import Any

from pydantic import ValidationError

from governance.errors import DomainError
from governance.principals import serving
from registry.catalog import TASKS
from registry.catalog.declaration import Task
from registry.catalog.generation import GenerationInputs, SamplingOptions
from registry.catalog.inputs import Inputs, Options
from registry.catalog.requests import RequestInvalid, invalid
from registry.media.store import MediaReference, media_open
from workers.celery_tasks.hosting import EngineHost, Loaded
from workers.celery_tasks.replies import Replies, Reply, join_deltas
from workers.clock import CLOCK
from workers.control.direct import StoredMedia
from workers.control.protocol import MediaFiles
from workers.engines.protocol import Engine, EngineRequest, RequestRefused, raise_exits
from workers.engines.runner import MediaOutput
from workers.references import contains, is_reference, replace_parts
from workers.request_logs import about
from workers.sealing import LONGEST_S, ReplySeals
from workers.tracing import begin_work
from workers.wire import Delta, Done, Event, Failed, InferenceRequest, RequestStarted

logger = logging.getLogger(__name__)
CANCEL_GRACE_S = 10.0
# Pause between checks of the deadlines of running requests, in seconds.
DEADLINE_CHECK_S = 0.1
REMEMBERED_CANCELS = 10_000
# The gateway ends a stream that pauses for too long, with an error; this process does so later, in
# case that the gateway has ended.
IDLE_GRACE_S = 5.0


class Answer:
    """The sink of one request: forwards its events, and calls `ended` once, after the last one.

    The pieces of an answer that is not streamed are joined and sent once, before the last event.
    Engines call it from their own threads.

    Attributes:
        request: The request to answer.
        end: Its last event, after that was sent.
        engine: The engine that works on it; None before.
    """

    def __init__(
        self,
        request: InferenceRequest,
        seals: ReplySeals,
        replies: Replies,
        clock: DeviceClock,
        ended: Callable[[Answer], None],
        media: MediaFiles,
    ) -> None:
        self._media = media
        self._clock = clock
        self._seals = seals
        self._ended = ended
        self._lock = threading.Lock()
        self.request = request
        self.end: Done | Failed | None = None
        self.engine: Engine | None = None
        self._paused_at = math.inf
        self._until = min(request.deadline or math.inf, CLOCK.now() + LONGEST_S)
        self._replies = replies
        self._queue_ms = 0
        self._held: dict[int, list[Delta]] = {}
        self._trace = begin_work(request)

    def is_late(self, now: float) -> bool:
        """Return whether the request is past its deadline at `now`, in seconds since the epoch, or
        has paused for too long between two tokens."""
        return now > min(self._until, self._paused_at)

    def started(self, task: str) -> None:
        """Record that the request now goes to its task's engine."""
        if self._trace is not None:
            self._trace.started(task)
        if self.request.enqueued_at:
            waited = CLOCK.now() - self.request.enqueued_at
            self._queue_ms = max(0, round(waited * 1000))
        self._clock.enter(self.request.request_id)
        if not self._seals.alone:
            self._send(RequestStarted())

    def __call__(self, event: Event) -> None:
        with self._lock:
            if self.end is not None:
                return
            over = isinstance(event, Done | Failed)
            if isinstance(event, Done | Failed):
                self.end = self._close(event)
            elif isinstance(event, Delta) and not self.request.stream:
                self._held.setdefault(event.index, []).append(event)
            else:
                if isinstance(event, Delta) and self.request.idle_s:
                    self._paused_at = CLOCK.now() + self.request.idle_s + IDLE_GRACE_S
                self._send(event)
        if over:
            if self._trace is not None and self.end is not None:
                self._trace.end(self.end)
            self._clock.leave(self.request.request_id)
            self._ended(self)

    def _close(self, event: Done | Failed) -> Done | Failed:
        """Send the pieces held back and the last event; return that event as sent."""
        if isinstance(event, Done):
            event = self._with_references(event)
        pieces: list[Delta] = []
        if isinstance(event, Done):
            pieces = [piece for held in self._held.values() for piece in join_deltas(held)]
            event = replace(
                event,
                queue_ms=event.queue_ms + self._queue_ms,
                device_ms=self._clock.leave(self.request.request_id),
            )
        elif isinstance(event, Failed) and event.units:
            event = replace(event, device_ms=self._clock.leave(self.request.request_id))
        self._send(*pieces, event)
        return event

    def _with_references(self, done: Done) -> Done | Failed:
        """Store the files that the runner made; return the event with references to them."""
        if not contains(done.results, _is_output):
            return done

        def stored(value: MediaOutput) -> dict[str, Any]:
            pk = self.request.deployment_id
            reference = self._media.write(pk, value.data, value.content_type)
            return {**reference.to_json(), "details": dict(value.details)}

        try:
            results = replace_parts(done.results, _is_output, stored)
        except DomainError as error:
            return Failed("media_unavailable", error.message, 503)
        return replace(done, results=results)

    def _send(self, *events: Event) -> None:
        self._replies.put(*(Reply(self._seals, event) for event in events))


class Answerer:
    """Runs the requests of one worker process, at most `most` of them at a time.

    `answer` waits while there are too many, and returns when an engine has the request. Any thread
    may call any method. Call `close` to stop the thread that enforces deadlines.
    """

    def __init__(
        self,
        host: EngineHost,
        replies: Replies,
        *,
        most: int = 128,
        media: MediaFiles | None = None,
        clock: DeviceClock | None = None,
    ) -> None:
        """`media` stores the files of requests; by default in this machine's folder. `clock`
        measures shares of device time."""
        self._media = media or StoredMedia()
        self._host = host
        self._replies = replies
        self._places = threading.Semaphore(most)
        self._answers: dict[str, Answer] = {}
        # A cancellation can overtake its request, which may still wait in the queue.
        self._canceled: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Condition()
        self._clock = clock or DeviceClock()
        self._stop = threading.Event()
        self._keeper = threading.Thread(
            target=self._keep_deadlines, name="assay-deadlines", daemon=True
        )
        self._keeper.start()

    def answer(self, request: InferenceRequest, seals: ReplySeals) -> None:
        """Pass one request to its engine; its last event is sent even if this fails."""
        self._places.acquire()
        answer = Answer(request, seals, self._replies, self._clock, self._ended, self._media)
        with self._lock:
            self._answers[request.request_id] = answer
        try:
            self._admit(request, answer)
        except RequestRefused as error:
            answer(Failed(error.code, str(error), error.status))
        except BaseException as error:
            logger.exception("A request failed")
            answer(Failed("engine_error", "The engine could not answer this request.", 500))
            raise_exits(error)

    def answers(self, deployment_id: int) -> bool:
        """Return whether any requests run on a deployment."""
        with self._lock:
            return any(
                each.request.deployment_id == deployment_id for each in self._answers.values()
            )

    def drain(self) -> None:
        """Wait until every request has ended, at its deadline at the latest."""
        with self._lock:
            self._lock.wait_for(lambda: not self._answers)

    def close(self) -> None:
        """Stop the thread that enforces deadlines."""
        self._stop.set()
        self._keeper.join()

    def cancel(self, request_id: str) -> None:
        """End a request, or keep it from beginning."""
        with self._lock:
            answer = self._answers.get(request_id)
            engine = None if answer is None else answer.engine
            # Recorded for a running request too, which its engine may not have received yet.
            self._canceled[request_id] = None
            while len(self._canceled) > REMEMBERED_CANCELS:
                self._canceled.popitem(last=False)
        if engine is not None:
            engine.cancel(request_id)

    def _admit(self, request: InferenceRequest, answer: Answer) -> None:
        loaded = self._host.find(request.deployment_id)
        refusal = self._refusal(request, loaded)
        if refusal is not None or loaded is None:
            answer(refusal or _gone(request))
            return
        with self._lock:
            overtaken = request.request_id in self._canceled
            answer.engine = None if overtaken else loaded.engine
        if overtaken:
            answer(Done("canceled", 0, 0))
        else:
            self._run(request, loaded, answer)

    def _run(self, request: InferenceRequest, loaded: Loaded, answer: Answer) -> None:
        # Open media before `started`: a node fetches them over the network, not in device time.
        opened = partial(self._media.read, request.deployment_id)
        task = TASKS[loaded.plan.task]
        inputs, options = parse_request(task, request.inputs, request.options, opened)
        inputs, options = fill_prompt(loaded, inputs, options)
        answer.started(loaded.plan.task)
        loaded.engine.submit(
            EngineRequest(
                request_id=request.request_id,
                inputs=inputs,
                options=options,
                adapter=loaded.adapter,
                scope=request.scope,
                stream=request.stream,
                units=request.units,
            ),
            answer,
        )
        with self._lock:
            overtaken = request.request_id in self._canceled
        if overtaken:
            loaded.engine.cancel(request.request_id)

    def _ended(self, answer: Answer) -> None:
        request = answer.request
        with self._lock:
            self._answers.pop(request.request_id, None)
            self._canceled.pop(request.request_id, None)
            self._lock.notify_all()
        self._places.release()
        with serving(request.request_id):
            logger.debug("Deployment %s has answered: %s", request.deployment, _summary(answer.end))

    def _keep_deadlines(self) -> None:
        """Cancel requests in their engine at the deadline; end those that the engine does not."""
        canceled: dict[str, float] = {}
        while not self._stop.wait(DEADLINE_CHECK_S):
            now = CLOCK.now()
            with self._lock:
                late = {name: each for name, each in self._answers.items() if each.is_late(now)}
            canceled = {name: since for name, since in canceled.items() if name in late}
            for request_id, answer in late.items():
                since = canceled.setdefault(request_id, now)
                try:
                    if now - since > CANCEL_GRACE_S:
                        answer(Failed("timeout", "The engine did not answer in time.", 504))
                    elif since == now and answer.engine is not None:
                        answer.engine.cancel(request_id)
                except Exception:
                    # A failing engine must not stop the enforcement of other deadlines.
                    logger.exception(
                        "Request %s could not be ended at its deadline",
                        request_id,
                        extra=about(request_id),
                    )

    def _refusal(self, request: InferenceRequest, loaded: Loaded | None) -> Failed | None:
        """Repeat the gateway's last check; return the reason why a request may not run here."""
        now = CLOCK.now()
        name = request.deployment
        if request.deadline and now > request.deadline:
            return Failed("timeout", f"{name} was too busy to begin in time.", 504)
        if loaded is None:
            return _gone(request)
        if request.digest != loaded.digest or loaded.digest != loaded.plan.digest:
            return Failed(
                "digest_mismatch",
                f"{name} has {loaded.digest[:12]}… loaded; the request was decided for "
                f"{request.digest[:12]}….",
                503,
            )
        if not self._host.leased(request.deployment_id):
            return Failed(
                "release_not_confirmed", f"The release of {name} was not confirmed recently.", 503
            )
        if now >= min(request.expires_at or loaded.plan.expires_at, loaded.plan.expires_at):
            return Failed("release_expired", f"The release of {name} has expired.", 403)
        return None


def parse_request(
    task: Task,
    inputs: dict[str, Any],
    options: dict[str, Any],
    opened: Callable[[MediaReference], BytesIO] = media_open,
) -> tuple[Inputs, Options]:
    """Return inputs and options as instances of the task's schemas, with media as binary streams.

    Raises:
        RequestRefused: they do not fit the schemas, or a file no longer exists.
    """
    try:
        return (
            task.input_schema.model_validate(_with_media(inputs, opened)),
            task.option_schema.model_validate(options),
        )
    except ValidationError as error:
        raise RequestRefused(invalid(error).message) from None


def fill_prompt(loaded: Loaded, inputs: Inputs, options: Options) -> tuple[Inputs, Options]:
    """Return inputs and options with the deployment's prompt filled in, if it has one.

    Raises:
        RequestRefused: the request does not fit the prompt, or sets variables without a prompt.
    """
    if not isinstance(inputs, GenerationInputs) or not isinstance(options, SamplingOptions):
        return inputs, options
    if loaded.prompt is None:
        if inputs.variables:
            raise RequestRefused(
                f"{loaded.plan.name} has no prompt; leave prompt_variables out.",
                code="unknown_parameter",
            )
        return inputs, options
    try:
        return loaded.prompt.applied(inputs, options)
    except RequestInvalid as error:
        raise RequestRefused(error.message, code=error.code) from None


def _with_media(
    inputs: dict[str, Any], opened: Callable[[MediaReference], BytesIO]
) -> dict[str, Any]:
    """Return the inputs with a binary stream in place of each reference to media.

    Raises:
        RequestRefused: a file no longer exists, or differs from the one that was checked.
    """

    def read(value: dict[str, Any]) -> BytesIO:
        try:
            return opened(MediaReference.from_json(value))
        except DomainError as error:
            raise RequestRefused(error.message, code="media_gone", status=503) from error

    opened_inputs: dict[str, Any] = replace_parts(inputs, is_reference, read)
    return opened_inputs


def _is_output(value: Any) -> bool:
    return isinstance(value, MediaOutput)


def _summary(end: Done | Failed | None) -> str:
    """Return a summary of an answer's end for the log, without any of its content."""
    if end is None:
        return "nothing"
    reason = end.code if isinstance(end, Failed) else end.finish_reason
    return f"{reason} after {end.prompt_tokens} and {end.completion_tokens} tokens"


def _gone(request: InferenceRequest) -> Failed:
    return Failed("not_loaded", f"{request.deployment} is not loaded by this worker.", 503)


class DeviceClock:
    """Divides a device's time equally: while n requests run, each is charged 1/n of every second,
    so that all shares add up to the time in which the device was busy.

    The clock accumulates the share of a hypothetical request that never ends; a request's share is
    the clock's advance between its beginning and its end.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._share_s = 0.0
        self._read_at = now()
        self._began_at: dict[str, float] = {}

    def enter(self, request_id: str) -> None:
        """Record that a request runs from now on."""
        with self._lock:
            self._advance()
            self._began_at[request_id] = self._share_s

    def leave(self, request_id: str) -> int:
        """Record that a request has ended; returns its share in ms, 0 if it was not running."""
        with self._lock:
            self._advance()
            began = self._began_at.pop(request_id, None)
            return 0 if began is None else round(1000 * (self._share_s - began))

    def _advance(self) -> None:
        now = self._now()
        if self._began_at:
            self._share_s += (now - self._read_at) / len(self._began_at)
        self._read_at = now


class NoDevice(DeviceClock):
    """Charges no device time, because a provider computes the answers."""

    def leave(self, request_id: str) -> int:
        """End a request; return 0."""
        super().leave(request_id)
        return 0
