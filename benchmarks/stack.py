"""Tokens per second through the whole stack, against `generate` at the same batch in process.

The subject is everything that a customer uses: HTTP, key, policy, quota, broker, engine, streams,
usage. The reference is plain transformers with the same weights, prompt, number of new tokens and
torch threads, in this process, while the stack is idle. Rounds are interleaved.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from assay.local.stack import Stack
from assay_demo.company import open_for_business
from assay_demo.data import materials
from assay_demo.stage import Stage
from assay_demo.story import intake, release, use
from benchmarks.table import Row, show

NEW_TOKENS = 64
CONCURRENCY = (1, 8, 32)
DEPLOYMENT = "bench-smollm2"
PROMPT = "Explain in a few sentences why a bank audits the models that it uses for its customers."
MESSAGES = [{"role": "user", "content": PROMPT}]


@contextmanager
def demo_stack(**settings: str) -> Iterator[Stage]:
    """Start the demo's stack and company in a separate folder; stop and remove them afterward, even
    if the benchmark is terminated. `settings` are added to each process's environment."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="assay-bench-", ignore_cleanup_errors=True) as scratch:
        Path(scratch).chmod(0o755)
        folder = Path(scratch) / "stack"
        stack = Stack(folder, demo=True, settings=settings)
        try:
            quiet = Console(quiet=True)
            stage = Stage(quiet, stack, folder, materials.fetch())
            stack.start(lambda text: None)
            open_for_business(stage)
            stack.wait_for_mlflow()
            yield stage
        finally:
            stack.stop()


def deploy_base(stage: Stage) -> str:
    """Run intake, review and deployment of the base model as in the demo; return an API key."""
    intake.run(stage)
    deploy(stage, stage.facts["smollm2-135m-instruct"], DEPLOYMENT)
    key = use.new_key(stage, "enzo", "engineering", "benchmark")
    return str(key["key"])


def deploy(stage: Stage, version: dict[str, Any], name: str, **fields: Any) -> None:
    """Review a version, deploy it for Engineering, and wait until it serves. `fields` adds fields
    of the release, such as its engine."""
    approved = release.submit(
        stage,
        "devi",
        version,
        name,
        departments=["engineering"],
        visibility="department",
        tier="minimal",
        purpose="Measure how fast it answers.",
        **fields,
    )
    if approved["state"] != "approved":
        release.attest(stage, "carla", approved)
        approved = release.approve(stage, "carla", "compliance", approved)
    release.ensure_deployed(stage, "enzo", approved)
    release.wait_serving(stage, "enzo", name)


async def _stream(client: httpx.AsyncClient, body: dict[str, Any]) -> int:
    tokens = 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if '"completion_tokens"' in line:
                tokens = json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]
    return tokens


async def through_the_stack(url: str, key: str, streams: int, *, model: str = DEPLOYMENT) -> float:
    """Return completion tokens per second over `streams` concurrent streams."""
    body = {
        "model": model,
        "messages": MESSAGES,
        "max_tokens": NEW_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=streams)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=300, limits=limits
    ) as client:
        started = time.perf_counter()
        counts = await asyncio.gather(*(_stream(client, body) for _ in range(streams)))
        return sum(counts) / (time.perf_counter() - started)


class Reference:
    """`generate` of transformers, with the engine's number of threads."""

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.bfloat16
        ).eval()

    def tokens_per_second(self, batch: int) -> float:
        """Return new tokens per second of one greedy `generate` over `batch` equal prompts."""
        inputs = self._tokenizer.apply_chat_template(
            [MESSAGES] * batch,
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        width = inputs["input_ids"].shape[1]
        started = time.perf_counter()
        with self._torch.inference_mode():
            output = self._model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        elapsed = time.perf_counter() - started
        ends = self._model.generation_config.eos_token_id
        tokens = 0
        for row in output[:, width:].tolist():
            tokens += row.index(ends) + 1 if ends in row else len(row)
        return tokens / elapsed


def run(*, quick: bool = False) -> list[Row]:
    """Start a separate stack, measure, and stop it."""
    threads = max(1, (os.cpu_count() or 2) - 1)
    with demo_stack() as stage:
        key = deploy_base(stage)
        digest = stage.facts["smollm2-135m-instruct"]["digest"]
        reference = Reference(files(stage.folder, digest), threads)
        return _measure(stage.stack.url, key, reference, rounds=1 if quick else 3)


def files(folder: Path, digest: str) -> Path:
    """Make a folder of a stored version's files."""
    stored, target = folder / "data" / "artifacts" / "files", folder / "reference" / digest[:12]
    manifest = json.loads((stored / digest[:2] / digest).read_bytes())
    for file in manifest["files"]:
        copy = target / file["path"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.hardlink_to(stored / file["sha256"][:2] / file["sha256"])
    return target


def _measure(url: str, key: str, reference: Reference, *, rounds: int) -> list[Row]:
    rows = []
    for streams in CONCURRENCY:
        asyncio.run(through_the_stack(url, key, min(streams, 2)))
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(rounds):
            theirs.append(reference.tokens_per_second(streams))
            ours.append(asyncio.run(through_the_stack(url, key, streams)))
        rows.append(Row.of(f"{streams} concurrent streams", "tokens/s", ours, theirs))
    return rows


if __name__ == "__main__":
    show("Whole stack", "generate, same batch", run(quick="--quick" in sys.argv))
