"""Processor time of Assay as a proxy to a provider, against other proxies of the same echo.

Assay runs whole: web process with key, policy, quotas and ledger, egress worker, Valkey. The other
proxies run with their default settings and without any of these. All get the same requests in turn.

`--portkey FOLDER` is a folder with `npm install @portkey-ai/gateway`; `--litellm PYTHON` the Python
of an environment with `pip install 'litellm[proxy]'`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from assay.local.services import free_port
from assay_demo.stage import Stage
from assay_demo.story import use
from assay_demo.story.intake import sign_off
from benchmarks.gateway import cpu_s, process, until_works, valkey_cpu_s
from benchmarks.hosted import EVENTS, PROMPT
from benchmarks.stack import demo_stack, deploy
from benchmarks.table import Row, show

NAME, MODEL = "bench-hosted", "echo-1"
REQUESTS, AT_ONCE, STREAMS = 400, 8, 50


@dataclass
class Proxy:
    """A proxy and its processes. `cpu` has functions that return processor seconds."""

    name: str
    url: str
    model: str
    headers: dict[str, str]
    cpu: list[Callable[[], float]] = field(default_factory=list)

    def spent(self) -> float:
        """Return the processor seconds of all its processes so far."""
        return sum(each() for each in self.cpu)

    def body(self, *, stream: bool) -> bytes:
        """Return the body of a request."""
        return json.dumps(
            {
                "model": self.model,
                "messages": [{"role": "user", "content": PROMPT}],
                "max_tokens": 48,
                "stream": stream,
            }
        ).encode()

    async def send(self, count: int, *, at_once: int, stream: bool) -> None:
        """Send requests and read the whole answers. Raises RuntimeError for another status."""
        left, body = iter(range(count)), self.body(stream=stream)
        limits = aiohttp.TCPConnector(limit=at_once)

        async def some(session: aiohttp.ClientSession) -> None:
            for _ in left:
                async with session.post(self.url, data=body) as answer:
                    content = await answer.read()
                    if answer.status != 200:
                        raise RuntimeError(f"{self.name} answered {answer.status}: {content!r}")

        headers = {**self.headers, "content-type": "application/json"}
        async with aiohttp.ClientSession(headers=headers, connector=limits) as session:
            await asyncio.gather(*(some(session) for _ in range(at_once)))


def spent_by_all(pid: int) -> float:
    """Return the processor seconds of a process and its descendants."""
    parent = psutil.Process(pid)
    return sum(cpu_s(each.pid) for each in (parent, *parent.children(recursive=True)))


@contextmanager
def echo() -> Iterator[str]:
    """Start the echo provider without TLS; return its address."""
    command = [sys.executable, "-m", "benchmarks.hosted", "provider"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = int((started.stdout.readline() if started.stdout else "") or 0)
        yield f"http://localhost:{port}/v1"
    finally:
        started.kill()
        started.wait()


@contextmanager
def assay(upstream: str) -> Iterator[Proxy]:
    """Start the whole stack, with a released and deployed description of the echo."""
    with demo_stack(ASSAY_EGRESS_INTERNAL_HOSTS="localhost") as stage:
        deploy(stage, _version(stage, upstream), NAME)
        key = use.new_key(stage, "enzo", "engineering", "benchmark")["key"]
        stack = stage.stack
        broker = stack.environment_of("migrate")["REDIS_URL"]
        pids = [stack.process(name).pid for name in ("web", "egress-worker")]
        yield Proxy(
            "Assay",
            f"{stack.url}/v1/chat/completions",
            NAME,
            {"authorization": f"Bearer {key}"},
            [*(partial(spent_by_all, pid) for pid in pids), lambda: valkey_cpu_s(broker)],
        )


def _version(stage: Stage, upstream: str) -> dict[str, Any]:
    enzo = stage["enzo"]
    enzo.post(
        "models", name=NAME, department="engineering", task="text-generation", description="Echo."
    )
    intake = enzo.post(
        "hosted-models",
        model=NAME,
        description={
            "provider": "Echo",
            "shape": "openai",
            "base_url": upstream,
            "model": MODEL,
            "region": "this machine",
            "parameters": ["max_tokens"],
            "context_tokens": 10_000,
            "max_tokens": 1_000,
            "terms": {
                "title": "None",
                "sha256": hashlib.sha256(b"").hexdigest(),
                "retention_days": 0,
                "trains_on_content": False,
            },
        },
    )

    def called() -> bool:
        return bool(enzo.get(f"intakes/{intake['id']}")["state"] == "awaiting_sign_off")

    stage.wait_for("the egress worker calls the echo", called)
    sign_off(stage, NAME, intake)
    (version,) = enzo.all(f"models/{NAME}/versions")
    detail: dict[str, Any] = version
    return detail


@contextmanager
def portkey(folder: str, upstream: str) -> Iterator[Proxy]:
    """Start Portkey's gateway."""
    port = free_port()
    script = Path(folder) / "node_modules/@portkey-ai/gateway/build/start-server.js"
    headers = {
        "authorization": "Bearer none",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": upstream,
    }
    with process("node", str(script), "--headless", f"--port={port}") as started:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        yield Proxy("Portkey", url, MODEL, headers, [partial(spent_by_all, started.pid)])


@contextmanager
def litellm(python: str, upstream: str) -> Iterator[Proxy]:
    """Start LiteLLM's proxy with one process."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        parameters = {"model": f"openai/{MODEL}", "api_base": upstream, "api_key": "none"}
        model = {"model_name": MODEL, "litellm_params": parameters}
        settings = {"model_list": [model], "general_settings": {"master_key": "sk-bench"}}
        config.write_text(json.dumps(settings))  # JSON is YAML.
        script = str(Path(python).with_name("litellm"))
        command = (python, script, "--config", str(config), "--port", str(port))
        with process(*command, "--host", "127.0.0.1", "--telemetry", "False") as started:
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            headers = {"authorization": "Bearer sk-bench"}
            yield Proxy("LiteLLM", url, MODEL, headers, [partial(spent_by_all, started.pid)])


def measure(proxies: list[Proxy], *, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Send the same requests to each proxy in turn; return the samples by row and proxy."""
    samples: dict[str, dict[str, list[float]]] = {}

    def add(row: str, proxy: Proxy, value: float) -> None:
        samples.setdefault(row, {}).setdefault(proxy.name, []).append(value)

    for proxy in proxies:
        asyncio.run(proxy.send(20, at_once=2, stream=False))
    for _ in range(rounds):
        for proxy in proxies:
            before, began = proxy.spent(), time.perf_counter()
            asyncio.run(proxy.send(REQUESTS, at_once=AT_ONCE, stream=False))
            took = time.perf_counter() - began
            add("processor time per request, ms", proxy, 1e3 * (proxy.spent() - before) / REQUESTS)
            add(f"{AT_ONCE} at a time, requests/s", proxy, REQUESTS / took)
            before = proxy.spent()
            try:
                asyncio.run(proxy.send(STREAMS, at_once=STREAMS, stream=True))
            except RuntimeError as error:
                if proxy is proxies[0]:
                    raise
                print(f"Not measured: {error}")  # noqa: T201
                continue
            each = 1e6 * (proxy.spent() - before) / (STREAMS * EVENTS)
            add("processor time per streamed event, µs", proxy, each)
    return samples


def main() -> None:
    """Print a table for each other proxy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portkey", default="", metavar="FOLDER")
    parser.add_argument("--litellm", default="", metavar="PYTHON")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if not (options.portkey or options.litellm):
        parser.error("name a proxy to compare with: --portkey FOLDER or --litellm PYTHON")
    with echo() as upstream, ExitStack() as stack:
        proxies = [stack.enter_context(assay(upstream))]
        if options.portkey:
            proxies.append(stack.enter_context(portkey(options.portkey, upstream)))
        if options.litellm:
            proxies.append(stack.enter_context(litellm(options.litellm, upstream)))
        for proxy in proxies[1:]:
            until_works(partial(_answers, proxy), timeout_s=180)
        samples = measure(proxies, rounds=2 if options.quick else 5)
    for proxy in proxies[1:]:
        rows = [
            Row.of(name, name.rpartition(", ")[2], values["Assay"], values.get(proxy.name, ()))
            for name, values in samples.items()
        ]
        show("Proxy to a provider, everything on", f"{proxy.name} with nothing on", rows)


def _answers(proxy: Proxy) -> bool:
    try:
        asyncio.run(proxy.send(1, at_once=1, stream=False))
    except aiohttp.ClientError as error:
        raise OSError(str(error)) from error
    return True


if __name__ == "__main__":
    main()
