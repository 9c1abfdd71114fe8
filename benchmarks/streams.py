"""1,000 streams that wait for their first token, and 200 that receive five tokens a second.

A responder replaces the engine, as in `benchmarks.gateway`, so that only the gateway is measured.
Every stream must end completely. Prints the memory of the web process per stream, and the delay of
tokens.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich.console import Console

from benchmarks.gateway import ROOT, furnish, open_requests, process, served
from benchmarks.stores import own_stores

IDLE, ACTIVE = 1000, 200
EVERY_S = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")
console = Console()


def respond(queue: str, seconds: float) -> None:
    """Send a token with the current time to each active stream every `EVERY_S` seconds; after
    `seconds`, end all streams.
    """
    from workers.wire import Delta, Done

    ends = time.monotonic() + 3600.0
    streams: list[Any] = []
    idle: list[Any] = []
    next_at = time.monotonic()
    for client, opened in open_requests(queue, block_s=0.01):
        if opened is not None:
            request, seals = opened
            text = request.inputs["messages"][-1]["content"]
            (idle if text == "wait" else streams).append(seals)
            if len(idle) + len(streams) == IDLE + ACTIVE:
                ends = time.monotonic() + seconds
            continue
        over = time.monotonic() > ends
        if not over and time.monotonic() < next_at:
            continue
        next_at = time.monotonic() + EVERY_S
        events = (Done("stop", 5, 1),) if over else (Delta(f"{time.time():.4f} ", 1),)
        pipe = client.pipeline(transaction=False)
        for seals in [*streams, *idle] if over else streams:
            pipe.xadd(seals.stream, seals.seal(*events), maxlen=100_000, approximate=True)
        pipe.execute()
        if over:
            streams, idle, ends = [], [], time.monotonic() + 3600.0


@dataclass
class ClientResults:
    """The clients' view: complete streams, broken ones, and the delay of tokens in ms."""

    whole: int = 0
    broken: list[str] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)


async def stream(port: int, token: str, text: str, results: ClientResults) -> None:
    """Open one stream and read it to its end."""
    body = json.dumps(
        {"model": "bench", "messages": [{"role": "user", "content": text}], "stream": True}
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write((head + body).encode())
        status = await reader.readline()
        if b" 200 " not in status:
            results.broken.append(status.decode())
            return
        while line := await reader.readline():
            if line.startswith(b"data: [DONE]"):
                results.whole += 1
                return
            if line.startswith(b"data: ") and text != "wait":
                _note(line, results)
        results.broken.append("ended early")
    finally:
        writer.close()


def _note(line: bytes, results: ClientResults) -> None:
    choices = json.loads(line[6:])["choices"]
    for sent_at in (choices[0]["delta"].get("content") or "").split() if choices else ():
        results.late_ms.append((time.time() - float(sent_at)) * 1000)


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 2**20


async def _measure(port: int, pid: int, token: str) -> ClientResults:
    results = ClientResults()
    await asyncio.gather(*(_refused(port, token) for _ in range(20)))
    before = _rss_mib(pid)
    tasks = []
    for number in range(IDLE + ACTIVE):
        text = "wait" if number < IDLE else "count"
        tasks.append(asyncio.create_task(stream(port, token, text, results)))
        if number % 50 == 49:
            await asyncio.sleep(0.2)
    await asyncio.sleep(10)
    during = _rss_mib(pid)
    await asyncio.gather(*tasks)
    console.print(f"whole: {results.whole}, broken: {len(results.broken)} {results.broken[:3]}")
    console.print(
        f"memory of the web process: {before:.0f} MiB before, {during:.0f} MiB during; "
        f"{(during - before) * 1024 / (IDLE + ACTIVE):.0f} KiB a stream"
    )
    marks = quantiles(results.late_ms, n=100)
    console.print(
        f"{len(results.late_ms):,} tokens: late by {median(results.late_ms):.0f} ms (median), "
        f"{marks[94]:.0f} ms (95th percentile), {marks[98]:.0f} ms (99th)"
    )
    return results


async def _refused(port: int, token: str) -> None:
    """Warm up the process with a request that is refused before it reaches the engine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n"
        "content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )
    writer.write(head.encode())
    await reader.readline()
    writer.close()


def main() -> int:
    """Run `python -m benchmarks.streams [--quick]`; return 1 if a stream broke."""
    if sys.argv[1:2] == ["respond"]:
        respond(sys.argv[2], float(sys.argv[3]))
        return 0
    seconds = "20" if "--quick" in sys.argv else "60"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    with own_stores(PYTHONPATH=paths, ASSAY_WEB_CONNECTIONS="1500"), ExitStack() as stack:
        token, queue = furnish()
        command = (sys.executable, "-m", "benchmarks.streams", "respond", queue, seconds)
        stack.enter_context(process(*command))
        subject = stack.enter_context(served(token, "assay.server", warm=False))
        results = asyncio.run(_measure(subject.port, subject.pid, token))
    return int(results.whole != IDLE + ACTIVE)


if __name__ == "__main__":
    sys.exit(main())
