"""Pass the requests of an evaluation's run to the provider of its version.

The run has no network and is not trusted: it may send as many requests for conversations as its
order needs, and nothing else. While the provider limits requests or is overloaded, the relay
repeats a request within bounds. When the run ends, the kernel closes its socket, and the exchanges
end.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

from pydantic import ValidationError

from registry.catalog.generation import GenerationInputs, SamplingOptions
from workers.engine_process.frames import BadFrame, Channel
from workers.engines.hosted.engine import DIFFERS, HostedEngine
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.references import replace_parts
from workers.wire import Delta, Done, Event, Failed, event_to_json

logger = logging.getLogger(__name__)
# Concurrent exchanges of one evaluation with its provider.
AT_ONCE = 8
# Maximum number of requests from the run without an answer, and size of one with its images.
OPEN_MAX, MAX_REQUEST = 2 * AT_ONCE, 16 * 1024 * 1024
# Temporary failures of a provider, and the first and longest pause before a request is repeated.
TEMPORARY = frozenset({"provider_rate_limited", "provider_overloaded"})
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 120.0
# Time for which one request is repeated.
PATIENCE_S = 900.0
_ID_MAX = 100


@dataclass(slots=True)
class Use:
    """Use of a provider by one evaluation so far. `names` has the pairs of model and fingerprint in
    its answers; `estimated` counts the answers without a credible number of tokens."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0
    names: frozenset[tuple[str, str]] = frozenset()


class Relay:
    """The relay of one run, in threads of its own.

    Args:
        end: This side's socket.
        engine: The engine of the order's version, which the relay closes.
        most: Number of requests that the order needs.
    """

    def __init__(self, end: socket.socket, engine: HostedEngine, *, most: int) -> None:
        self._channel = Channel(end)
        self._engine = engine
        self._left = most
        self._lock = threading.Lock()
        self._use = Use()
        self._reason = ""
        self._stop = threading.Event()
        self._room = threading.Semaphore(OPEN_MAX)
        self._open: dict[str, threading.Event] = {}
        self._queue: queue.SimpleQueue[tuple[str, EngineRequest, threading.Event] | None] = (
            queue.SimpleQueue()
        )
        self._threads = [
            threading.Thread(target=self._work, name="assay-relay", daemon=True)
            for _ in range(AT_ONCE)
        ]
        self._reader = threading.Thread(target=self._read, name="assay-relay-in", daemon=True)

    def start(self) -> None:
        """Start to pass requests on."""
        for thread in (*self._threads, self._reader):
            thread.start()

    def use(self) -> Use:
        """Return a copy of the use so far."""
        with self._lock:
            return replace(self._use, names=frozenset(self._engine.stated))

    def refuse(self, reason: str) -> None:
        """Stop sending to the provider; all requests fail with this reason."""
        with self._lock:
            self._reason = self._reason or reason
        self._stop.set()
        self._cancel_all()

    def close(self) -> None:
        """End all exchanges and the connection to the run; wait for their ends."""
        self.refuse("The evaluation ended.")
        self._channel.close()
        for _ in self._threads:
            self._queue.put(None)
        for thread in (*self._threads, self._reader):
            if thread.ident is not None:
                thread.join()
        self._engine.close()

    def _read(self) -> None:
        try:
            for message in self._channel.messages(most=MAX_REQUEST):
                if message.get("do") == "cancel":
                    self._cancel(str(message.get("id")))
                else:
                    self._accept(message)
        except Exception as error:
            # The text of a validation error may have data of the request.
            logger.warning(
                "The run of an evaluation sent an invalid message: %s", type(error).__name__
            )
        # The run has ended, or broke the protocol.
        self.refuse("The run of the evaluation ended.")
        self._channel.close()

    def _accept(self, message: Mapping[str, Any]) -> None:
        """Queue a request. Raises ValueError, KeyError or TypeError if the message is invalid."""
        name = message["id"]
        if not isinstance(name, str) or not 0 < len(name) <= _ID_MAX:
            raise ValueError("the ID is not a short text")
        try:
            inputs = replace_parts(message["inputs"], lambda each: isinstance(each, bytes), BytesIO)
            options = SamplingOptions.model_validate(message["options"])
            request = EngineRequest(
                name, GenerationInputs.model_validate(inputs), options, stream=False
            )
        except ValidationError as error:
            raise ValueError("the request does not fit the schemas") from error
        self._room.acquire()
        with self._lock:
            self._left -= options.made
            if self._left < 0 or name in self._open:
                raise ValueError("there are more requests than the order needs")
            canceled = self._open[name] = threading.Event()
        self._queue.put((name, request, canceled))

    def _cancel(self, name: str) -> None:
        with self._lock:
            canceled = self._open.get(name)
        if canceled is not None:
            canceled.set()
            self._engine.cancel(name)

    def _cancel_all(self) -> None:
        with self._lock:
            names = list(self._open)
        for name in names:
            self._cancel(name)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            name, request, canceled = item
            text = ""
            event: Done | Failed = Failed("engine_error", "The egress worker failed.", 500)
            try:
                text, event = self._answer(request, canceled)
            except Exception:
                logger.exception("A request of an evaluation failed")
            with self._lock:
                self._open.pop(name, None)
            self._room.release()
            if text:
                self._send(name, Delta(text, 0))
            self._send(name, event)

    def _send(self, name: str, event: Event) -> None:
        try:
            self._channel.send({"id": name, "event": event_to_json(event)})
        except BadFrame:
            logger.warning("An answer of a provider could not be passed to its evaluation")

    def _answer(
        self, request: EngineRequest, canceled: threading.Event
    ) -> tuple[str, Done | Failed]:
        """Return an answer and its last event; repeat the request after temporary failures."""
        until, wait_s = time.monotonic() + PATIENCE_S, FIRST_WAIT_S
        while True:
            if self._stop.is_set() or canceled.is_set():
                return "", Failed("engine_stopped", self._reason or "It was canceled.", 503)
            text, event = self._exchange(request, canceled)
            self._count(event)
            if isinstance(event, Done):
                return self._checked(text, event)
            if event.code == DIFFERS:
                self.refuse(
                    f"{event.message} Take in a description of that model, and evaluate it."
                )
                return "", replace(event, message=self._reason)
            if self._stop.is_set() or event.code not in TEMPORARY:
                return "", self._stopped() or event
            pause_s = min(max(event.retry_after_s, wait_s), LONGEST_WAIT_S)
            if time.monotonic() + pause_s > until:
                return "", Failed(
                    event.code,
                    f"{event.message} The request was repeated for {PATIENCE_S / 60:.0f} minutes.",
                    event.status,
                )
            canceled.wait(pause_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _exchange(
        self, request: EngineRequest, canceled: threading.Event
    ) -> tuple[str, Done | Failed]:
        parts: list[str] = []
        ends: queue.SimpleQueue[Done | Failed] = queue.SimpleQueue()

        def sink(event: Event) -> None:
            if isinstance(event, Delta):
                parts.append(event.text)
            elif isinstance(event, Done | Failed):
                ends.put(event)

        try:
            self._engine.submit(request, sink)
        except RequestRefused as error:
            return "", Failed(error.code, str(error), error.status)
        if canceled.is_set():
            # The cancellation may have come before the engine knew the request.
            self._engine.cancel(request.request_id)
        event = ends.get()
        return "".join(parts), event

    def _count(self, event: Done | Failed) -> None:
        with self._lock:
            use = self._use
            use.answers += isinstance(event, Done)
            use.prompt_tokens += event.prompt_tokens
            use.completion_tokens += event.completion_tokens
            use.estimated += event.estimated

    def _checked(self, text: str, event: Done) -> tuple[str, Done | Failed]:
        """Return an answer, or the failure of one that came after the end."""
        if (stopped := self._stopped()) is not None:
            return "", stopped
        if event.finish_reason == "canceled":
            return "", Failed("engine_stopped", "It was canceled.", 503)
        return text, event

    def _stopped(self) -> Failed | None:
        if not self._stop.is_set():
            return None
        return Failed("engine_stopped", self._reason, 503)
