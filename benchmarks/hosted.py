"""Processor time of the engine of hosted models, against an echo provider over TLS.

The provider is a separate process, which answers every request with one fixed text, whole or as
events. The figure is all processor time of the process with the engine: encoding, TLS, HTTP, JSON
and events. It excludes the gateway and the worker's queue, which `./bench gateway` measures. The
reference is the same client without the engine: it sends the same bytes and reads the whole answer.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from benchmarks.audit_streaming import self_signed
from benchmarks.table import Row, show
from registry.catalog.generation import ChatMessage, GenerationInputs, SamplingOptions
from registry.catalog.hosted import HOSTED_FILE, HostedDescription
from workers.egress.connections import EgressRules
from workers.egress.credentials import NoCredentials
from workers.egress.loop import EgressLoop
from workers.engines.hosted.engine import HostedEngine
from workers.engines.protocol import EngineRequest
from workers.wire import Delta, Done, Event

AT_ONCE = 8
STREAMS, EVENTS, GAP_S = 50, 200, 0.01
REQUEST_MS, EVENT_US = 0.5, 60.0
PROMPT = "Write the one-line docstring. " * 8
INPUTS = GenerationInputs(messages=[ChatMessage(role="user", content=PROMPT)])
OPTIONS = SamplingOptions(max_tokens=48, stated=["max_tokens"])
USAGE = {"prompt_tokens": 60, "completion_tokens": 80, "total_tokens": 140}


def _piece(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish}
    body = {
        "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012",
        "object": "chat.completion.chunk",
        "created": 1764470000,
        "model": "echo-1",
        "system_fingerprint": "fp_0123456789",
        "choices": [choice],
    }
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_MESSAGE = {"role": "assistant", "content": "word " * 80}
WHOLE = orjson.dumps(
    {
        "model": "echo-1",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(WHOLE),
    WHOLE,
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECES = [_chunk(_piece(f" tok{number:04d}")) for number in range(EVENTS)]
END = (
    _chunk(_piece("", "stop"))
    + _chunk(b"data: " + orjson.dumps({"choices": [], "usage": USAGE}) + b"\n\n")
    + _chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


class _Echo(asyncio.Protocol):
    """Answers each request that arrives; a body with `"stream":true` gets events."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._data = transport, b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, blank, body = self._data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        if not blank or len(body) < length:
            return
        self._data = body[length:]
        if b'"stream":true' in body:
            self._transport.write(HEAD)
            self._next(0)
        else:
            self._transport.write(ANSWER)

    def _next(self, number: int) -> None:
        if self._transport.is_closing():
            return
        if number == len(PIECES):
            self._transport.write(END)
            return
        self._transport.write(PIECES[number])
        asyncio.get_running_loop().call_later(GAP_S, self._next, number + 1)


def provider(certificate: str = "") -> None:
    """Serve as the echo provider until killed, with a certificate over TLS; print the port."""
    import uvloop

    async def serve() -> None:
        context = None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Echo, "127.0.0.1", 0, ssl=context)
        print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
        await server.serve_forever()

    uvloop.run(serve())


class Subject:
    """The engine, and requests to it."""

    def __init__(self, folder: Path, port: int, certificate: Path) -> None:
        description = HostedDescription.read(
            {
                "provider": "Echo",
                "shape": "openai",
                "base_url": f"https://127.0.0.1:{port}/v1",
                "model": "echo-1",
                "region": "here",
                "parameters": ["max_tokens"],
                "context_tokens": 10_000,
                "max_tokens": 1_000,
                "terms": {
                    "title": "None",
                    "sha256": "0" * 64,
                    "retention_days": 0,
                    "trains_on_content": False,
                },
            }
        )
        (folder / HOSTED_FILE).write_bytes(description.canonical())
        self.loop = EgressLoop(
            EgressRules(internal_hosts=frozenset({"127.0.0.1"}), ca_file=str(certificate))
        )
        self._engine = HostedEngine(
            folder, loop=self.loop, credentials=NoCredentials(), deployment_id=1
        )
        self.route = self.loop.egress.route(description.base_url)
        self._number = 0

    def close(self) -> None:
        self._engine.close()
        self.loop.close()

    def run(self, count: int, *, at_once: int, stream: bool) -> tuple[float, int]:
        """Return the processor seconds of `count` requests, and the number of pieces."""
        places, over = threading.Semaphore(at_once), threading.Semaphore(0)
        pieces = 0

        def sink(event: Event) -> None:
            nonlocal pieces
            if isinstance(event, Delta):
                pieces += 1
                return
            if not isinstance(event, Done):
                raise RuntimeError(f"The request failed: {event}")
            places.release()
            over.release()

        began = time.process_time()
        for _ in range(count):
            places.acquire()
            self._number += 1
            request = EngineRequest(f"req_{self._number}", INPUTS, OPTIONS, stream=stream)
            self._engine.submit(request, sink)
        for _ in range(count):
            over.acquire()
        return time.process_time() - began, pieces

    def bare(self, count: int, *, at_once: int, stream: bool) -> float:
        """Return the processor seconds of the same exchanges without the engine."""
        message = {"role": "user", "content": PROMPT}
        request = {"model": "echo-1", "messages": [message], "max_tokens": 48}
        body = orjson.dumps(request | ({"stream": True} if stream else {}))

        async def one() -> None:
            answer = await self.route.send(
                "POST", "/chat/completions", body=body, headers={}, first_byte_s=60
            )
            while await answer.chunk(10**8):
                pass
            answer.close()

        async def many() -> None:
            left = iter(range(count))

            async def some() -> None:
                for _ in left:
                    await one()

            await asyncio.gather(*(some() for _ in range(at_once)))

        began = time.process_time()
        self.loop.run(many()).result()
        return time.process_time() - began


@contextmanager
def started() -> Iterator[Subject]:
    """Start the provider and an engine for it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate = folder / "provider.pem"
        self_signed(certificate)
        command = [sys.executable, "-m", "benchmarks.hosted", "provider", str(certificate)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            port = int((process.stdout.readline() if process.stdout else "") or 0)
            subject = Subject(folder, port, certificate)
            try:
                yield subject
            finally:
                subject.close()
        finally:
            process.kill()
            process.wait()


def run(*, quick: bool) -> list[Row]:
    """Return the measurements. Rounds of the engine and of the reference alternate."""
    requests, rounds = (500, 3) if quick else (2_000, 7)
    samples: dict[str, tuple[list[float], list[float]]] = {}

    def add(name: str, subject: float, reference: float) -> None:
        subjects, references = samples.setdefault(name, ([], []))
        subjects.append(subject)
        references.append(reference)

    with started() as subject:
        subject.run(200, at_once=AT_ONCE, stream=False)
        for _ in range(rounds):
            spent, _ = subject.run(requests, at_once=AT_ONCE, stream=False)
            bare = subject.bare(requests, at_once=AT_ONCE, stream=False)
            add("processor time per request, ms", 1e3 * spent / requests, 1e3 * bare / requests)
            spent, pieces = subject.run(STREAMS, at_once=STREAMS, stream=True)
            bare = subject.bare(STREAMS, at_once=STREAMS, stream=True)
            add("processor time per streamed event, µs", 1e6 * spent / pieces, 1e6 * bare / pieces)
    return [
        Row.of(name.partition(", ")[0], name.rpartition(", ")[2], subjects, references)
        for name, (subjects, references) in samples.items()
    ]


def main(*, quick: bool) -> int:
    """Print the table; return 1 if a bar is not met."""
    rows = run(quick=quick)
    show("Hosted models, over TLS", "client alone", rows)
    met = rows[0].subject <= REQUEST_MS and rows[1].subject <= EVENT_US
    print(  # noqa: T201
        f"Bars: {REQUEST_MS} ms a request, {EVENT_US:g} µs an event: {'met' if met else 'MISSED'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["provider"]:
        provider(*sys.argv[2:])
    else:
        sys.exit(main(quick="--quick" in sys.argv))
