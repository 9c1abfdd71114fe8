"""Serving through the whole stack, against the engine or the model alone in the same run.

Time to the first token: of one stream through HTTP, key, policy, quota, broker and worker, and of
the same engine in this process. Embeddings: 64 clients that send one text each; the same model in
this process, in successive batches of 32 texts; and the 64 clients against `mlflow models serve`.
Added latency: 100 requests a second to two web processes, with a responder as the engine, and to
the bare echo.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx

from assay.local.programs import stop_process_group
from assay.local.services import free_port
from assay.local.stack import Stack
from assay_demo.stage import Stage
from benchmarks.clients import KeptConnection
from benchmarks.gateway import BODY, ROOT, furnish, process, served, until_works
from benchmarks.stack import DEPLOYMENT, PROMPT, demo_stack, deploy, deploy_base, files
from benchmarks.stores import own_stores
from benchmarks.table import Row, show

ENCODER = "bench-minilm"
CLIENTS, TEXTS, BATCH = 64, 512, 32
RATE = 100
FIRST_TOKENS = 20


def texts(count: int) -> list[str]:
    """Return `count` distinct sentences of about twenty tokens."""
    return [
        f"Invoice {n} of the branch in Vienna was paid twice and is refunded." for n in range(count)
    ]


async def first_token_ms(url: str, key: str) -> float:
    """Return the time from the request to the first text of one stream, in ms."""
    body = {
        "model": DEPLOYMENT,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 4,
        "temperature": 0,
        "stream": True,
    }
    async with httpx.AsyncClient(base_url=url, headers=_bearer(key), timeout=60) as client:
        await client.get("/v1/models")
        started = time.perf_counter()
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if '"content":"' in line and '"content":""' not in line:
                    return (time.perf_counter() - started) * 1000
    raise RuntimeError("The stream had no text.")


class EngineAlone:
    """The worker's engine in this process, with the same files and number of threads."""

    def __init__(self, folder: Path) -> None:
        from workers.engines.generation import GenerationEngine

        threads = max(1, (os.cpu_count() or 2) - 1)
        self._engine: Any = GenerationEngine(
            folder, architectures=("LlamaForCausalLM",), threads=threads
        )

    def first_token_ms(self) -> float:
        """Return the time from `submit` to the first text, in ms."""
        from registry.catalog.generation import GenerationInputs, SamplingOptions
        from workers.engines.protocol import EngineRequest
        from workers.wire import Delta

        came, over = threading.Event(), threading.Event()

        def sink(event: Any) -> None:
            if isinstance(event, Delta):
                if event.text:
                    came.set()
            else:
                over.set()

        inputs = GenerationInputs.model_validate(
            {"messages": [{"role": "user", "content": PROMPT}]}
        )
        request = EngineRequest("first", inputs, SamplingOptions(max_tokens=4, temperature=0.0))
        started = time.perf_counter()
        self._engine.submit(request, sink)
        came.wait(60)
        took = (time.perf_counter() - started) * 1000
        over.wait(60)
        return took

    def close(self) -> None:
        self._engine.close()


async def embeddings_rate(
    port: int, token: str, path: str, bodies: Iterable[dict[str, Any]]
) -> float:
    """Return the bodies answered per second for `CLIENTS` clients that each send sequentially."""
    remaining, total = iter(bodies), 0

    async def one() -> None:
        nonlocal total
        connection = KeptConnection(port, token)
        for body in remaining:
            await connection.post(path, json.dumps(body).encode())
            total += 1
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    return total / (time.perf_counter() - started)


def encoder_rate(encoder: Any) -> float:
    """Return texts per second of successive batches in this process."""
    everything = texts(TEXTS)
    started = time.perf_counter()
    for at in range(0, TEXTS, BATCH):
        encoder.encode(everything[at : at + BATCH])
    return TEXTS / (time.perf_counter() - started)


async def paced_ms(port: int, token: str, seconds: float) -> list[float]:
    """Send `RATE` requests a second without waiting for answers; return each one's time in ms."""
    times: list[float] = []
    headers = {**_bearer(token), "content-type": "application/json"}
    limits = httpx.Limits(max_connections=RATE)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, limits=limits
    ) as client:

        async def one() -> None:
            started = time.perf_counter()
            response = await client.post("/v1/chat/completions", content=BODY)
            response.raise_for_status()
            times.append((time.perf_counter() - started) * 1000)

        await asyncio.gather(*(one() for _ in range(20)))
        times.clear()
        tasks, began = [], time.perf_counter()
        for number in range(int(RATE * seconds)):
            await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            tasks.append(asyncio.create_task(one()))
        await asyncio.gather(*tasks)
    return times


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def added_latency(*, rounds: int, seconds: float) -> list[Row]:
    """Return rows of latency at `RATE` requests a second. Django must not be set up yet."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
    with own_stores(PYTHONPATH=paths), ExitStack() as stack:
        token, queue = furnish()
        stack.enter_context(process(sys.executable, "-m", "benchmarks.gateway", "respond", queue))
        subject = stack.enter_context(served(token, "assay.server", "--workers", "2"))
        echoed = ("uvicorn", "benchmarks.gateway:echo", "--no-access-log")
        reference = stack.enter_context(served(token, *echoed))
        percentiles: dict[str, tuple[list[float], list[float]]] = {
            "50th": ([], []),
            "99th": ([], []),
        }
        for _ in range(rounds):
            for place, each in enumerate((subject, reference)):
                marks = quantiles(asyncio.run(paced_ms(each.port, token, seconds)), n=100)
                percentiles["50th"][place].append(marks[49])
                percentiles["99th"][place].append(marks[98])
    return [
        Row.of(f"{RATE} requests/s, {name} percentile", "ms", ours, theirs)
        for name, (ours, theirs) in percentiles.items()
    ]


def through_everything(*, rounds: int) -> tuple[list[Row], list[Row]]:
    """Return rows of first tokens and of embeddings, from a separate stack."""
    with demo_stack() as stage:
        key = deploy_base(stage)
        deploy(stage, stage.facts["all-minilm-l6-v2"], ENCODER)
        return (
            _first_tokens(stage.stack, key, stage, rounds=rounds),
            _embeddings(stage.stack, key, stage, rounds=rounds),
        )


def _first_tokens(stack: Stack, key: str, stage: Stage, *, rounds: int) -> list[Row]:
    digest = stage.facts["smollm2-135m-instruct"]["digest"]
    alone = EngineAlone(files(stack.folder, digest))
    try:
        ours, theirs = [], []
        for number in range(rounds * FIRST_TOKENS + 2):
            pair = alone.first_token_ms(), asyncio.run(first_token_ms(stack.url, key))
            if number >= 2:  # The first ones warm both up.
                theirs.append(pair[0])
                ours.append(pair[1])
    finally:
        alone.close()
    return [Row.of("time to the first token", "ms", ours, theirs)]


def _embeddings(stack: Stack, key: str, stage: Stage, *, rounds: int) -> list[Row]:
    from benchmarks.encoder import Encoder

    # OpenAI's clients request base64.
    ours = [{"model": ENCODER, "input": text, "encoding_format": "base64"} for text in texts(TEXTS)]
    theirs = [{"inputs": [text]} for text in texts(TEXTS)]
    folder = files(stack.folder, stage.facts["all-minilm-l6-v2"]["digest"])
    encoder = Encoder(folder)
    encoder_rate(encoder)
    with mlflow_server(folder) as port:
        rates: list[list[float]] = [[], [], []]
        for _ in range(rounds):
            rates[0].append(asyncio.run(embeddings_rate(stack.port, key, "/v1/embeddings", ours)))
            rates[1].append(encoder_rate(encoder))
            rates[2].append(asyncio.run(embeddings_rate(port, "", "/invocations", theirs)))
    load = f"{CLIENTS} clients, one text each"
    return [
        Row.of(f"{load}, against batches of {BATCH} in process", "texts/s", rates[0], rates[1]),
        Row.of(f"{load}, against `mlflow models serve`", "texts/s", rates[0], rates[2]),
    ]


@contextmanager
def mlflow_server(folder: Path) -> Iterator[int]:
    """Serve the same weights with `mlflow models serve` and default settings; yield the port."""
    import mlflow

    with tempfile.TemporaryDirectory(prefix="assay-bench-") as scratch:
        saved = Path(scratch) / "model"
        code = ROOT / "benchmarks" / "encoder.py"
        weights = {"weights": str(folder)}
        mlflow.pyfunc.save_model(saved, python_model=code, artifacts=weights, pip_requirements=[])
        port = free_port()
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(saved)]
        command += ["--env-manager", "local", "--port", str(port)]
        # MLflow starts `uvicorn` by name.
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as server:
            try:
                until_works(lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
                yield port
            finally:
                stop_process_group(server)


def main() -> None:
    """Run `python -m benchmarks.serve [--quick]`."""
    quick = "--quick" in sys.argv
    first, vectors = through_everything(rounds=1 if quick else 5)
    show("Through everything", "the engine alone", first)
    show("Embeddings through everything", "reference", vectors)
    show(
        "The gateway with two processes",
        "bare echo",
        added_latency(rounds=1 if quick else 5, seconds=5 if quick else 10),
    )


if __name__ == "__main__":
    main()
