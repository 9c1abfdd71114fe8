"""An engine whose model runs in a server process.

Assay's own processes render and tokenize prompts, so that the checks on control tokens hold; the
server receives tokens. Each row has a thread that reads its tokens, and a connection that closes
when the row ends, which tells the server of a cancellation.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from registry.catalog.endpoints import TokenScore
from registry.catalog.generation import SamplingOptions
from workers.engines.batch import Row
from workers.engines.grammars import Vocabulary
from workers.engines.prompts import PromptCanceled, PromptProcesses
from workers.engines.protocol import (
    EngineRequest,
    EngineStopped,
    RequestRefused,
    Sink,
    raise_exits,
)
from workers.engines.rows import RowMaker
from workers.engines.servers.channel import ServerFailed, ServerRefused, Stream
from workers.engines.servers.process import ServerProcess
from workers.request_logs import about
from workers.wire import Done, EngineLoad

logger = logging.getLogger(__name__)

MAX_WAITING = 256
_ENDED = "The model's server ended; the request can be sent again."


@dataclass(frozen=True, slots=True)
class Token:
    """A token from a server. `spoken` is the text of the last `count` tokens if the server named
    only this one of them."""

    number: int
    score: TokenScore | None = None
    spoken: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class End:
    """The end of an answer: `finish` is `stop` or `length`, `count` the number of tokens that
    earlier events have not counted."""

    finish: str
    count: int


class Dialect(Protocol):
    """The requests and answers of one kind of server."""

    target: str

    def check(self, request: EngineRequest, options: SamplingOptions) -> None:
        """Raise RequestRefused if the server does not support the options."""

    def body(self, row: Row, scope: str) -> dict[str, Any]:
        """Return the request for a row's tokens. `scope` identifies the owner of the request."""

    def tokens(self, row: Row, event: Mapping[str, Any]) -> Iterator[Token]:
        """Yield the tokens in one event of the answer. Raises ServerFailed if it is malformed."""

    def end(self, row: Row, event: Mapping[str, Any]) -> End | None:
        """Return the end that an event reports, or None. Raises ServerFailed if the answer was cut
        off."""

    def measure(self, row: Row, server: ServerProcess, scope: str) -> float:
        """Return the summed nats of the row's reference. Raises as `Stream.events`."""


class ServedEngine:
    """The engine of one server; see `workers.engines.protocol.Engine`.

    Args:
        dialect: Requests and answers of the server.
        tokenizer: The model's own.
        eos: Tokens that end an answer.
        vocabulary: Tokenizer for grammars and texts of tokens.
        max_context: Prompt and answer together, in tokens.
        max_rows: Answers that are generated together; one request gets at most half of them.
        max_positions: Limit on the positions of all running rows together.
    """

    def __init__(
        self,
        *,
        dialect: Dialect,
        tokenizer: Any,
        eos: frozenset[int],
        vocabulary: Vocabulary,
        max_context: int,
        max_rows: int,
        max_positions: int,
    ) -> None:
        self._dialect = dialect
        self._eos = eos
        self._vocabulary = vocabulary
        self.max_context = max_context
        self._max_rows, self._max_positions = max_rows, max_positions
        self._prompts = PromptProcesses(tokenizer)
        self._maker = RowMaker(
            tokenizer, self._prompts, self._vocabulary, None, max_context, lambda adapter: 0
        )
        self._lock = threading.RLock()
        self._waiting: deque[Row] = deque()
        self._running: dict[Row, Stream | None] = {}
        self._scopes: dict[str, str] = {}
        self._known: Counter[str] = Counter()  # rows of requests that have not ended
        self._events: defaultdict[str, Any] = defaultdict(threading.RLock)
        self._canceled: set[str] = set()
        self._unloaded: set[str] = set()
        self._adapters: set[str] = set()
        self._closing = False
        self._server: ServerProcess | None = None
        self._pool = ThreadPoolExecutor(max_rows, thread_name_prefix="served-row")

    @property
    def working_s(self) -> float:
        """Return 0: requests to the server have separate time limits."""
        return 0.0

    @property
    def fault(self) -> str:
        """Reason why the server has ended; empty while it runs."""
        return "" if self._server is None else self._server.fault

    def current_load(self) -> EngineLoad:
        """Return the rows that the server has and those that wait. A server makes one token for
        each of its rows in a step, but does not report its steps."""
        with self._lock:
            running, waiting = list(self._running), len(self._waiting)
        return EngineLoad(len(running), waiting, cache=self.cache_used(running))

    def cache_used(self, running: Collection[Row]) -> float | None:
        """Return the used share of the server's memory for keys and values; None if unknown."""
        return min(1.0, sum(row.length for row in running) / self._max_positions)

    def add_adapter(self, name: str, folder: Path) -> None:
        """Raise ValueError: this server takes no adapters."""
        raise ValueError("Models of this engine take no adapters.")

    def remove_adapter(self, name: str) -> None:
        """Raise ValueError: this server takes no adapters."""
        raise ValueError("Models of this engine take no adapters.")

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        """Queue a request; its events reach `sink` from threads of this engine."""
        if isinstance(request.options, SamplingOptions):
            self._dialect.check(request, request.options)
        try:
            rows = self._maker.rows(request, sink)
        except PromptCanceled:
            sink(Done("canceled", 0, 0))
            return
        generates = any(row.limit or row.echo is not None or row.reference for row in rows)
        with self._lock:
            self._check_room(request, len(rows))
            if generates:
                self._known[request.request_id] = len(rows)
                self._scopes[request.request_id] = request.scope
                self._waiting += rows
        if not generates:
            for row in rows:
                row.end("length")
            return
        self._admit()

    def cancel(self, request_id: str) -> None:
        """End a request immediately; unknown and ended requests are ignored."""
        self._prompts.cancel(request_id)
        with self._lock:
            if request_id not in self._known:
                return
            self._canceled.add(request_id)
        self._drop(lambda row: row.request_id == request_id)

    def close(self) -> None:
        """Fail running and waiting requests, and end the server."""
        with self._lock:
            self._closing = True
        self._drop(lambda row: True)
        if self._server is not None:
            self._server.close()
        self._pool.shutdown()
        self._prompts.close()

    def end_server(self, fault: str) -> None:
        """End the server because of a fault, as if it had ended by itself."""
        if self._server is not None:
            self._server.fail(fault)

    def _server_ended(self) -> None:
        """Fail waiting rows; running rows notice the end by themselves."""
        self._drop(lambda row: True)

    def _check_room(self, request: EngineRequest, rows: int) -> None:
        if self._closing:
            raise EngineStopped
        if self.fault:
            raise RequestRefused(_ENDED, code="engine_error", status=503)
        if request.request_id in self._known:
            raise RequestRefused(f"Request {request.request_id} is running already.")
        if request.adapter is not None and request.adapter not in self._adapters:
            raise RequestRefused(
                f"No adapter named {request.adapter!r} is loaded.", code="adapter_not_found"
            )
        if len(self._waiting) + rows > MAX_WAITING:
            raise RequestRefused(
                f"{len(self._waiting)} answers are waiting already; try again shortly.",
                code="engine_overloaded",
                status=429,
            )

    def _admit(self) -> None:
        """Start the waiting rows for which there is room, in order."""
        with self._lock:
            counts = Counter(row.request_id for row in self._running)
            positions = sum(row.final_length for row in self._running)
            left: deque[Row] = deque()
            while self._waiting:
                row = self._waiting.popleft()
                full = len(self._running) == self._max_rows or (
                    self._running and positions + row.final_length > self._max_positions
                )
                if full:
                    left.append(row)
                    break
                if counts[row.request_id] == max(1, self._max_rows // 2):
                    left.append(row)
                    continue
                self._running[row] = None
                counts[row.request_id] += 1
                positions += row.final_length
                self._pool.submit(self._serve, row)
            self._waiting = left + self._waiting

    def _drop(self, leaves: Any) -> None:
        """End waiting rows for which `leaves` is true; close the streams of such running rows."""
        with self._lock:
            gone = [row for row in self._waiting if leaves(row)]
            self._waiting = deque(row for row in self._waiting if not leaves(row))
            streams = [stream for row, stream in self._running.items() if stream and leaves(row)]
        for stream in streams:
            stream.close()
        for row in gone:
            self._end(row)
            self._forget(row)

    # The methods below run in a row's thread.

    def _serve(self, row: Row) -> None:
        try:
            if row.choices.started is None:
                row.choices.started = time.monotonic()
            if self._is_over(row):
                self._end(row)
                return
            self._send(row, row.begin)
            if row.reference and self._server is not None:
                nats = self._dialect.measure(row, self._server, self._scopes[row.request_id])
                if not math.isfinite(nats):
                    raise ServerFailed("a likelihood is not a finite number")
                row.likelihood = {
                    "nats": nats,
                    "tokens": len(row.reference),
                    "complete": not row.reference_cut,
                }
            if row.limit:
                self._generate(row)
            self._end(row)
        except RequestRefused as error:
            code, message, status = error.code, str(error), error.status
            self._send(row, lambda: row.fail(code, message, status))
        except ServerRefused as error:
            logger.error("The server refused a request: %s", error, extra=about(row.request_id))
            self._send(row, lambda: row.fail("engine_error", "The model's server failed.", 500))
        except ServerFailed as error:
            if not self._is_over(row):
                logger.error(
                    "The server ended a request early: %s", error, extra=about(row.request_id)
                )
            self._end(row, broken=True)
        except BaseException as error:
            logger.exception("a row of a request failed", extra=about(row.request_id))
            self._send(row, lambda: row.fail("engine_error", "The engine failed.", 500))
            raise_exits(error)
        finally:
            with self._lock:
                self._running.pop(row, None)
            self._forget(row)
            self._admit()

    def _generate(self, row: Row) -> None:
        if self._server is None:
            raise ServerFailed("the server has not started")
        body = self._dialect.body(row, self._scopes[row.request_id])
        with Stream(self._server.address, self._server.limits.silent_s) as stream:
            with self._lock:
                self._running[row] = stream
                if self._is_over(row):
                    return
            for event in stream.events(self._dialect.target, body):
                if self._is_over(row):
                    return
                for token in self._dialect.tokens(row, event):
                    self._take(row, token)
                    if row.finish is not None:
                        return
                if (end := self._dialect.end(row, event)) is not None:
                    self._finish(row, end)
                    return
        raise ServerFailed("the answer has no end")

    def _finish(self, row: Row, end: End) -> None:
        if end.finish == "stop":
            # The server does not always name the token that ends an answer.
            self._take(row, Token(min(self._eos), count=max(1, end.count)))
            return
        self._check_count(row, end.count, least=0)
        self._send(row, lambda: row.cut(end.count))

    def _check_count(self, row: Row, count: int, *, least: int = 1) -> None:
        if not least <= count <= row.limit - row.produced:
            raise ServerFailed(f"{count} more tokens than the answer may have")

    def _take(self, row: Row, token: Token) -> None:
        self._check_count(row, token.count)
        if not 0 <= token.number < self._vocabulary.size:
            raise ServerFailed("an event names a token that does not exist")
        number = self._settled(row, token)
        if number == token.number:
            self._put(row, token)
        else:
            self._complete(row, Token(number))

    def _put(self, row: Row, token: Token) -> None:
        self._send(
            row,
            lambda: row.take(
                token.number, self._eos, token.score, spoken=token.spoken, count=token.count
            ),
        )

    def _settled(self, row: Row, token: Token) -> int:
        """Return the token, or another one that completes the answer in time.

        The server applies biases and masks itself, but does not reserve tokens for the end.
        """
        if row.shaper is None:
            return token.number
        try:
            if token.spoken is None:
                return row.shaper.take(token.number, row.limit - row.produced - 1)
            row.shaper.follow(token.spoken)
        except RequestRefused as error:
            logger.info(
                "An answer goes on without a reserve: %s", error, extra=about(row.request_id)
            )
            row.shaper = None
        return token.number

    def _complete(self, row: Row, token: Token) -> None:
        """Add `token`, and complete the answer in place of the server."""
        self._put(row, token)
        while row.finish is None:
            rest = [] if row.shaper is None else row.shaper.ending(row.limit - row.produced)
            number = self._settled(row, Token(rest[0])) if rest else min(self._eos)
            self._put(row, Token(number))

    def _is_over(self, row: Row) -> bool:
        return (
            self._closing
            or bool(self.fault)
            or row.request_id in self._canceled
            or row.choices.over
            or row.adapter in self._unloaded
        )

    def _end(self, row: Row, *, broken: bool = False) -> None:
        """Send the last event of a row, by the reason for its end."""
        if row.finish is not None:
            self._send(row, row.end)
        elif row.request_id in self._canceled or row.choices.over:
            self._send(row, lambda: row.end("canceled"))
        elif row.adapter in self._unloaded:
            self._send(
                row,
                lambda: row.fail(
                    "adapter_unloaded", f"{row.adapter} was taken out of service.", 503
                ),
            )
        elif self._closing:
            self._send(row, lambda: row.fail("engine_stopped", "The engine was stopped.", 503))
        elif broken or self.fault:
            self._send(row, lambda: row.fail("engine_error", _ENDED, 503))
        else:
            self._send(row, lambda: row.end("length" if row.limit == 0 else "stop"))

    def _send(self, row: Row, action: Any) -> None:
        """Run an action that sends events; only one thread of a request may send at a time."""
        with self._events[row.request_id]:
            action()

    def _forget(self, row: Row) -> None:
        with self._lock:
            self._known[row.request_id] -= 1
            if self._known[row.request_id] <= 0:
                del self._known[row.request_id]
                self._scopes.pop(row.request_id, None)
                self._events.pop(row.request_id, None)
                self._canceled.discard(row.request_id)
                if not self._known:
                    self._unloaded.clear()


def token_score(
    vocabulary: Vocabulary, text: bytes, log: float, likeliest: Iterable[tuple[int, float]]
) -> TokenScore:
    """Return a token's score in the format of answers, texts in Latin-1. Raises ServerFailed."""
    pairs = [(vocabulary.bytes_of(token).decode("latin-1"), value) for token, value in likeliest]
    if not all(map(math.isfinite, [log, *(value for _, value in pairs)])):
        raise ServerFailed("a probability is not a finite number")
    return text.decode("latin-1"), log, pairs
