"""A test provider on a real socket, and an engine that calls it. Tests define its behavior."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.catalog.generation import ChatMessage, GenerationInputs, SamplingOptions
from registry.catalog.hosted import HOSTED_FILE, OPERATIONS, HostedDescription, Operation
from registry.catalog.inputs import Inputs, Options
from tests.waiting import PATIENCE_S
from workers.egress.connections import EgressRules
from workers.egress.credentials import Credentials, NoCredentials
from workers.egress.loop import EgressLoop
from workers.engines.hosted.engine import HostedEngine
from workers.engines.protocol import EngineRequest
from workers.wire import Delta, Done, Event, Failed

# Values of the fields that only some operations have.
FIELDS: dict[str, Any] = {
    "context_tokens": 10_000,
    "max_tokens": 1_000,
    "dimensions": 3,
    "max_inputs": 4,
    "voices": ["ash", "coral"],
}
PATHS = {"openai": "/v1", "anthropic": "/v1", "gemini": "/v1beta"}


@dataclass(frozen=True)
class Received:
    """One request that the provider received."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behavior = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


class Provider:
    """A server in a thread. `behave` writes the whole answer, head included.

    Attributes:
        received: The requests so far.
        closed: Set when a connection ended before its answer did.
    """

    def __init__(self, behave: Behavior, tls: ssl.SSLContext | None = None) -> None:
        self._behave = behave
        self.received: list[Received] = []
        self.connections = 0
        self.closed = threading.Event()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls, limit=2**26), self.loop
        )
        self._server = started.result(PATIENCE_S)
        self.port = self._server.sockets[0].getsockname()[1]
        scheme = "http" if tls is None else "https"
        self.origin = f"{scheme}://localhost:{self.port}"

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result(PATIENCE_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)
        self.loop.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, value in (line.split(":", 1) for line in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                received = Received(first.split(" ")[1], headers, body)
                self.received.append(received)
                answering = asyncio.ensure_future(self._behave(received, writer))
                gone = asyncio.ensure_future(reader.read(1))
                done, _ = await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
                if answering not in done:
                    answering.cancel()
                    self.closed.set()
                    return
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
                if answering.exception() is not None or writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM = head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
END = b"0\r\n\r\n"


def event(data: Any, name: str = "") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def streams(*events: bytes) -> Behavior:
    """Return the behavior of a provider that streams these events and ends."""

    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + b"".join(map(chunk, events)) + END)
        await writer.drain()

    return behave


def replies(body: Any, *lines: str, status: str = "200 OK") -> Behavior:
    """Return the behavior of a provider that answers at once."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        length = f"Content-Length: {len(data)}"
        kind = "Content-Type: application/json"
        writer.write(head(length, *(lines or (kind,)), status=status) + data)
        await writer.drain()

    return behave


def described(origin: str, shape: str = "openai", **fields: Any) -> HostedDescription:
    operation = Operation(fields.get("operation", "chat"))
    return HostedDescription.read(
        {
            "provider": "Test",
            "shape": shape,
            "base_url": origin + PATHS[shape],
            "model": "test-1",
            "region": "here",
            "parameters": [
                "max_tokens", "temperature", "top_p", "stop", "seed", "choices", "logprobs",
                "logit_bias", "presence_penalty", "frequency_penalty", "json_schema", "tools",
                "images",
            ] if operation is Operation.CHAT else [],
            **{name: FIELDS[name] for name in OPERATIONS[operation].fields},
            "terms": {
                "title": "Terms",
                "sha256": "0" * 64,
                "retention_days": 0,
                "trains_on_content": False,
            },
            **fields,
        }
    )  # fmt: skip


@dataclass
class Answers:
    """A sink that keeps its events. `text`, `calls` and `end` are those of a whole answer."""

    events: list[Event] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.begun.set()
        if isinstance(event, Done | Failed):
            self.over.set()

    @property
    def end(self) -> Done | Failed:
        assert self.over.wait(PATIENCE_S)
        last = self.events[-1]
        assert isinstance(last, Done | Failed)
        assert not any(isinstance(each, Done | Failed) for each in self.events[:-1])
        return last

    @property
    def done(self) -> Done:
        assert isinstance(self.end, Done), self.end
        return self.end

    @property
    def failed(self) -> Failed:
        assert isinstance(self.end, Failed), self.end
        return self.end

    @property
    def deltas(self) -> list[Delta]:
        return [each for each in self.events if isinstance(each, Delta)]

    @property
    def text(self) -> str:
        return "".join(each.text for each in self.deltas)

    @property
    def calls(self) -> list[tuple[str, str]]:
        calls: dict[int, tuple[str, str]] = {}
        for each in self.deltas:
            if each.call is not None:
                number, name, arguments = each.call
                before = calls.get(number, ("", ""))
                calls[number] = (before[0] + name, before[1] + arguments)
        return [calls[number] for number in sorted(calls)]


class Caller:
    """An engine for a description, and the loop that it uses."""

    def __init__(
        self,
        folder: Path,
        description: HostedDescription,
        *,
        rules: EgressRules | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        (folder / HOSTED_FILE).write_bytes(description.canonical())
        self.loop = EgressLoop(rules or EgressRules(internal_hosts=frozenset({"localhost"})))
        self.engine = HostedEngine(
            folder,
            loop=self.loop,
            credentials=credentials or NoCredentials(),
            deployment_id=1,
        )
        self._number = 0

    def close(self) -> None:
        self.engine.close()
        self.loop.close()

    def ask(
        self,
        inputs: Inputs | str = "Hello",
        options: Options | None = None,
        *,
        stream: bool = True,
        request_id: str = "",
    ) -> Answers:
        """Submit a request. Raises RequestRefused."""
        if isinstance(inputs, str):
            inputs = GenerationInputs(messages=[ChatMessage(role="user", content=inputs)])
        self._number += 1
        answers = Answers()
        request = EngineRequest(
            request_id or f"req_{self._number}",
            inputs,
            SamplingOptions() if options is None else options,
            stream=stream,
        )
        self.engine.submit(request, answers)
        return answers


@contextmanager
def calling(
    folder: Path,
    behave: Behavior,
    shape: str = "openai",
    *,
    rules: EgressRules | None = None,
    credentials: Credentials | None = None,
    tls: ssl.SSLContext | None = None,
    **fields: Any,
) -> Iterator[tuple[Caller, Provider]]:
    """Yield an engine and the provider that it calls."""
    provider = Provider(behave, tls)
    try:
        description = described(provider.origin, shape, **fields)
        caller = Caller(folder, description, rules=rules, credentials=credentials)
        try:
            yield caller, provider
        finally:
            caller.close()
    finally:
        provider.close()
