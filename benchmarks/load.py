"""Compare the ledger with the engines' counts after thousands of requests with failures.

Clients send short chats to a real model on a whole stack, one in six disconnects in the middle, and
the engine worker is killed repeatedly. Afterward every request that a client saw, every request
that a worker counted and every row of the ledger are compared. Then a second worker replaces the
first one under load, which must not fail any request.

`--minutes N` instead sends mixed traffic for N minutes (chats, completions, responses, Anthropic's
messages and embeddings, half of the texts streamed) and prints the memory of each process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import psutil
import psycopg
from rich.console import Console

from assay.database_roles.privileges import OWNER
from assay.local.stack import Stack
from benchmarks.stack import DEPLOYMENT, demo_stack, deploy, deploy_base

CLIENTS = 24
HANG_UP = 1 / 6
WORKER = "engine-worker"
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
MIXED = (CHAT, "/v1/completions", "/v1/responses", "/v1/messages", EMBEDDINGS)
ENCODER = "bench-minilm"
# Texts in the last event of a complete stream, by kind.
ENDS = (
    *("data: [DONE]", "event: message_stop"),
    *("event: response.completed", "event: response.incomplete"),
)
_ENDED = re.compile(r"has answered: (\w+) after (\d+) and (\d+) tokens")
console = Console()


@dataclass
class ClientResults:
    """The clients' view: answers by status, and the usage in complete answers."""

    statuses: Counter[str] = field(default_factory=Counter)
    # Prompt and completion tokens of each completely answered request, by its ID.
    answered: dict[str, tuple[int, int]] = field(default_factory=dict)
    paths: Counter[str] = field(default_factory=Counter)


def _request(path: str, dice: random.Random) -> dict[str, Any]:
    """Return a short request for an endpoint; texts are streamed or not."""
    text, most = f"Count from {dice.randrange(900)}.", dice.randint(1, 6)
    if path == EMBEDDINGS:
        return {"model": ENCODER, "input": [text] * most}
    stream = dice.random() < 0.5
    body: dict[str, Any] = {"model": DEPLOYMENT, "stream": stream}
    match path:
        case "/v1/completions":
            body |= {"prompt": text, "max_tokens": most}
        case "/v1/responses":
            return body | {"input": text, "max_output_tokens": most, "store": False}
        case "/v1/messages":
            return body | {"messages": [{"role": "user", "content": text}], "max_tokens": most}
        case _:
            body |= {"messages": [{"role": "user", "content": text}], "max_tokens": most}
    return body | ({"stream_options": {"include_usage": True}} if stream else {})


async def ask(
    client: httpx.AsyncClient,
    results: ClientResults,
    dice: random.Random,
    *,
    leave: bool,
    path: str = CHAT,
) -> None:
    """Send one request; disconnect in the middle of it if `leave`.

    Retry when a refusal requests it, like the official clients.
    """
    body = _request(path, dice)
    while not await _try(client, results, path, body, dice.uniform(0.05, 1.5) if leave else None):
        await asyncio.sleep(1)


async def _try(
    client: httpx.AsyncClient,
    results: ClientResults,
    path: str,
    body: dict[str, Any],
    patience_s: float | None,
) -> bool:
    """Send the request once; return whether it is done."""
    try:
        async with asyncio.timeout(patience_s):
            async with client.stream("POST", path, json=body) as response:
                request_id = response.headers["x-request-id"]
                text = (await response.aread()).decode()
    except TimeoutError:
        results.statuses["hung up"] += 1
        return True
    except httpx.HTTPError as error:
        results.statuses[type(error).__name__] += 1
        return True
    ok, streamed = response.status_code == 200, body.get("stream", False)
    usage = _usage(text, streamed=streamed) if ok else None
    results.statuses[str(response.status_code) if usage or response.is_error else "cut"] += 1
    if usage is not None:
        results.answered[request_id] = usage
        results.paths[path] += 1
    return response.status_code not in (429, 502, 503)


def _usage(text: str, *, streamed: bool) -> tuple[int, int] | None:
    """Return the prompt and completion tokens in an answer; None for an incomplete stream."""
    answers = [text]
    if streamed:
        if not any(end in text for end in ENDS):
            return None
        lines = [line for line in text.split("\n") if line.startswith("data: {")]
        answers = [line.removeprefix("data: ") for line in lines]
    usage: dict[str, int] = {}
    for answer in map(json.loads, answers):
        holder = answer.get("response") or answer.get("message") or answer
        usage = holder.get("usage") or usage
    if "input_tokens" in usage:
        return usage["input_tokens"], usage["output_tokens"]
    return usage["prompt_tokens"], usage.get("completion_tokens", 0)


async def send(url: str, key: str, count: int, *, hang_up: float, seed: int = 0) -> ClientResults:
    """Send `count` chats from `CLIENTS` clients."""
    results, dice, remaining = ClientResults(), random.Random(seed), iter(range(count))
    async with _client(url, key) as client:

        async def one() -> None:
            for _ in remaining:
                await ask(client, results, dice, leave=dice.random() < hang_up)

        await asyncio.gather(*(one() for _ in range(CLIENTS)))
    return results


def _client(url: str, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers={"authorization": f"Bearer {key}"},
        timeout=120,
        limits=httpx.Limits(max_connections=CLIENTS),
    )


async def kill_now_and_then(stack: Stack, every_s: float, stop: asyncio.Event) -> int:
    """Kill the engine worker after every `every_s` seconds of service and restart it; return the
    number of kills.
    """
    kills = 0
    while True:
        try:
            await asyncio.wait_for(stop.wait(), every_s)
            return kills
        except TimeoutError:
            await asyncio.to_thread(stack.end, WORKER, kill=True)
            kills += 1
            stack.start_engine_worker()
            await asyncio.to_thread(wait_for_workers, stack, 1)


def counted_by_workers(stack: Stack) -> dict[str, tuple[str, int, int]]:
    """Return each request's end, prompt and completion tokens, from the workers' logs."""
    requests = {}
    for log in stack.logs.glob("engine-worker*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if (match := _ENDED.search(line)) and line.startswith("{"):
                end, prompt, completion = match.groups()
                requests[json.loads(line)["request_id"]] = (end, int(prompt), int(completion))
    return requests


def _database(stack: Stack) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect as the superuser, because row-level security hides rows from every other role."""
    url = stack.environment_of("migrate")["DATABASE_URL"]
    return psycopg.connect(url.replace(f"{OWNER}@", "postgres@"))


def ledger(stack: Stack) -> dict[str, tuple[str, int, int]]:
    """Return outcome, prompt and completion tokens of every request in the ledger."""
    with _database(stack) as connection:
        rows = connection.execute(
            "SELECT request_id, outcome, prompt_tokens, completion_tokens"
            " FROM governance_usagerecord WHERE endpoint = ANY(%s)",
            [list(MIXED)],
        ).fetchall()
    return {name: (outcome, prompt, completion) for name, outcome, prompt, completion in rows}


def compare(stack: Stack, results: ClientResults) -> Counter[str]:
    """Count agreements and disagreements; the keys of disagreements begin with `FAULT`."""
    booked, workers = ledger(stack), counted_by_workers(stack)
    counted: Counter[str] = Counter()
    for request_id, tokens in results.answered.items():
        row = booked.get(request_id)
        right = row is not None and row[0] == "ok" and row[1:] == tokens
        counted["answers booked as stated" if right else "FAULT: answer not booked as stated"] += 1
    for request_id, (end, *counts) in workers.items():
        if not any(counts):
            continue  # The request ended before it ran.
        row = booked.get(request_id)
        if row is None:
            counted["FAULT: worked for and not booked"] += 1
        elif row[1:] == tuple(counts):
            counted["booked as the worker counted"] += 1
        elif end == "canceled" or row[0] in ("canceled", "failed"):
            counted["ended while the worker counted, booked by estimate"] += 1
        else:
            counted["FAULT: booked otherwise than the worker counted"] += 1
    for request_id, row in booked.items():
        if request_id in workers or not any(row[1:]):
            continue
        died = row[0] in ("failed", "canceled")
        counted["worker died, booked by estimate" if died else "FAULT: booked and not run"] += 1
    return counted


def wait_until(met: Callable[[], bool], event: str, timeout_s: float = 120.0) -> None:
    """Wait until `met` returns True. Raises RuntimeError after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not met():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{event} did not happen within {timeout_s:.0f} s.")
        time.sleep(0.2)


def settle(stack: Stack, results: ClientResults) -> None:
    """Wait until the ledger has every answer and has not grown for five seconds."""

    def settled() -> bool:
        before = len(ledger(stack))
        time.sleep(5)
        return len(ledger(stack)) == before >= len(results.answered)

    wait_until(settled, "The last entry in the ledger")


def break_things(stack: Stack, key: str, *, requests: int, kill_every_s: float) -> int:
    """Run the load with disconnects and kills; return the number of faults."""

    async def run() -> tuple[ClientResults, int]:
        stop = asyncio.Event()
        killing = asyncio.create_task(kill_now_and_then(stack, kill_every_s, stop))
        results = await send(stack.url, key, requests, hang_up=HANG_UP)
        stop.set()
        return results, await killing

    started = time.perf_counter()
    results, kills = asyncio.run(run())
    took = time.perf_counter() - started
    settle(stack, results)
    counts = compare(stack, results)
    console.print(
        f"{requests:,} requests in {took:.0f} s, {kills} workers killed: {dict(results.statuses)}"
    )
    for result, count in sorted(counts.items()):
        console.print(f"  {count:>7,}  {result}")
    return sum(count for result, count in counts.items() if result.startswith("FAULT"))


def replace_worker(stack: Stack, key: str, *, requests: int) -> int:
    """Replace the worker by a second one under load; return the number of failed requests."""

    async def run() -> ClientResults:
        sending = asyncio.create_task(send(stack.url, key, requests, hang_up=0.0, seed=1))
        stack.start_engine_worker(2)
        await asyncio.to_thread(wait_for_workers, stack, 2)
        await asyncio.to_thread(stack.end, WORKER)
        return await sending

    results = asyncio.run(run())
    failed = sum(count for status, count in results.statuses.items() if status != "200")
    console.print(f"worker replaced under {requests:,} requests: {dict(results.statuses)}")
    return failed


def wait_for_workers(stack: Stack, count: int) -> None:
    """Wait until `count` workers have reported, after this call, that the model is loaded."""
    began = datetime.now(UTC)
    wait_until(lambda: _replicas(stack, began) == count, f"{count} ready workers")


def _replicas(stack: Stack, since: datetime) -> int:
    with _database(stack) as connection:
        row = connection.execute(
            "SELECT count(*) FROM workers_replica WHERE state = 'ready' AND heartbeat_at > %s",
            [since],
        ).fetchone()
    return 0 if row is None else int(row[0])


def soak(stack: Stack, key: str, minutes: float, rate: float) -> int:
    """Send `rate` requests a second for `minutes`; print the memory of each process, in MiB."""

    async def run() -> ClientResults:
        results, dice = ClientResults(), random.Random(2)
        async with _client(stack.url, key) as client, asyncio.TaskGroup() as tasks:
            end = time.monotonic() + 60 * minutes
            sampled = 0.0
            while time.monotonic() < end:
                if time.monotonic() - sampled > 60:
                    sampled = time.monotonic()
                    console.print(f"  {_memory(stack)}  {dict(results.statuses)}")
                leave, path = dice.random() < HANG_UP, dice.choice(MIXED)
                tasks.create_task(ask(client, results, dice, leave=leave, path=path))
                await asyncio.sleep(dice.expovariate(rate))
        console.print(f"  {_memory(stack)}  {dict(results.statuses)}  {dict(results.paths)}")
        return results

    results = asyncio.run(run())
    settle(stack, results)
    counts = compare(stack, results)
    console.print(dict(counts))
    return sum(count for result, count in counts.items() if result.startswith("FAULT"))


def _memory(stack: Stack) -> dict[str, int]:
    """Return the resident memory of each process with its children, in MiB."""
    sizes = {}
    for name in ("web", "controller", WORKER):
        process = psutil.Process(stack.process(name).pid)
        family = [process, *process.children(recursive=True)]
        sizes[name] = sum(each.memory_info().rss for each in family) >> 20
    return sizes


def main() -> int:
    """Run `python -m benchmarks.load [--quick] [--requests N] [--minutes N]`; return the faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=4.0, help="requests a second of --minutes")
    options = parser.parse_args()
    requests = 600 if options.quick else options.requests
    # The workers' logs contain the counts to compare with the ledger.
    os.environ.update(ASSAY_LOG_LEVEL="DEBUG", ASSAY_LOG_FORMAT="json")
    with demo_stack() as stage:
        stack, key = stage.stack, deploy_base(stage)
        if options.minutes:
            deploy(stage, stage.facts["all-minilm-l6-v2"], ENCODER)
            return soak(stack, key, options.minutes, options.rate)
        faults = break_things(stack, key, requests=requests, kill_every_s=45)
        return faults + replace_worker(stack, key, requests=max(200, requests // 10))


if __name__ == "__main__":
    sys.exit(min(main(), 1))
