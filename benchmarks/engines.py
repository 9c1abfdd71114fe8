"""Tokens per second of the engines of other projects, against the same server alone.

First the worker's engine: prompts rendered and tokenized in separate processes, a supervised
server, tokens read, decoded and counted, events to the sinks. Then everything a customer uses: key,
policy, quota, broker, worker, ledger. The reference sends the same prompt as tokens to an equal
server over its socket, and only counts. Rounds take turns. llama.cpp answers one stream from an
unconverted GGUF; vLLM answers 32, if ASSAY_VLLM_PYTHON is set.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from assay_demo.data import materials
from assay_demo.stage import Stage
from assay_demo.story import intake
from benchmarks.engine import MESSAGES, NEW_TOKENS, engine_rate
from benchmarks.progress import Quiet
from benchmarks.stack import MESSAGES as CHAT
from benchmarks.stack import demo_stack, deploy, deploy_base, through_the_stack
from benchmarks.table import Row, show
from registry.catalog.generation import GenerationInputs
from workers.engines.servers.channel import Stream
from workers.engines.servers.engine import ServedEngine
from workers.engines.servers.llama_cpp import LlamaCppEngine
from workers.engines.servers.vllm import VllmEngine
from workers.trainers.convert import convert
from workers.trainers.delivered_gguf import keep_gguf

LLAMA = ("LlamaForCausalLM",)
STREAMS = {"llama.cpp": 1, "vllm": 32}
PYTHONS = {"vllm": "ASSAY_VLLM_PYTHON"}
DEPLOYED = "bench-engine"
BODIES: dict[str, dict[str, Any]] = {
    "llama.cpp": {"n_predict": NEW_TOKENS, "cache_prompt": False, "return_tokens": True},
    "vllm": {"model": "base", "max_tokens": NEW_TOKENS, "return_token_ids": True},
}


def started(name: str, folder: Path) -> ServedEngine:
    """Start the engine `name` with SmolLM2-135M, with its files in `folder`, and return it."""
    delivered = materials.fetch(names=["smollm2"])["smollm2"].parent
    threads = max(1, (os.cpu_count() or 2) - 1)
    if name == "llama.cpp":
        keep_gguf(delivered, folder, LLAMA, Quiet())
        return LlamaCppEngine(folder, architectures=LLAMA, threads=threads)
    convert(delivered, folder, LLAMA, Quiet())
    python = os.environ[PYTHONS[name]]
    return VllmEngine(folder, architectures=LLAMA, threads=threads, python=python, max_context=1024)


def alone(engine: Any, name: str, messages: list[dict[str, str]]) -> float:
    """Return tokens per second of the engine's server for direct requests of the same answers."""
    inputs = GenerationInputs.model_validate({"messages": messages})
    prompt = engine._prompts.encode("prompt", inputs)
    body = {**BODIES[name], "prompt": prompt, "temperature": 0.0, "stream": True}

    def one(_: int) -> int:
        tokens = 0
        with Stream(engine._server.address, 300) as stream:
            for event in stream.events(engine._dialect.target, body):
                tokens += len(event.get("tokens") or ())
                for choice in event.get("choices") or ():
                    tokens += len(choice.get("token_ids") or ())
        return tokens

    began = time.perf_counter()
    with ThreadPoolExecutor(STREAMS[name]) as pool:
        tokens = sum(pool.map(one, range(STREAMS[name])))
    return tokens / (time.perf_counter() - began)


def of_the_worker(name: str, *, rounds: int) -> Row:
    """Measure the worker's engine against its own server."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as scratch:
        engine = started(name, Path(scratch) / "files")
        ours: list[float] = []
        theirs: list[float] = []
        requests = [None] * STREAMS[name]
        try:
            engine_rate(engine, [None])
            for _ in range(rounds):
                theirs.append(alone(engine, name, MESSAGES))
                ours.append(engine_rate(engine, requests))
        finally:
            engine.close()
    return Row.of(f"{name} in a worker, {STREAMS[name]} at once", "tokens/s", ours, theirs)


def through_everything(name: str, *, rounds: int) -> Row:
    """Measure a deployment on the engine against another such server, in turn."""
    with demo_stack() as stage, tempfile.TemporaryDirectory(prefix="assay-bench-") as scratch:
        key = deploy_base(stage)
        base = stage.facts["smollm2-135m-instruct"]
        deploy(stage, _gguf_version(stage) if name == "llama.cpp" else base, DEPLOYED, engine=name)
        engine = started(name, Path(scratch) / "files")
        ours: list[float] = []
        theirs: list[float] = []
        streams = STREAMS[name]
        try:
            for number in range(rounds + 1):
                reference = alone(engine, name, CHAT)
                chats = through_the_stack(stage.stack.url, key, streams, model=DEPLOYED)
                subject = asyncio.run(chats)
                if number:  # The first round warms both up.
                    theirs.append(reference)
                    ours.append(subject)
        finally:
            engine.close()
    return Row.of(f"{name} through everything, {streams} at once", "tokens/s", ours, theirs)


def _gguf_version(stage: Stage) -> dict[str, Any]:
    """Run another intake of the GGUF, without conversion, and return the version."""
    about = intake.MODELS["smollm2-135m-instruct"]
    material = stage.materials[about["material"]]
    delivery = intake.deliver(stage, "smollm2-kept", about, material, keep_gguf="true")
    stage.watch(stage["enzo"], {"id": delivery["job"]}, "checking the GGUF")
    intake.sign_off(stage, "smollm2-kept", delivery)
    return stage.require(intake.version_of(stage, "smollm2-kept"), "the GGUF has a version")


if __name__ == "__main__":
    names = [name for name in STREAMS if name in sys.argv]
    if not names:
        names = [each for each in STREAMS if each not in PYTHONS or os.environ.get(PYTHONS[each])]
    count = 2 if "--quick" in sys.argv else 8
    measures = (of_the_worker, through_everything)
    rows = [measure(name, rounds=count) for name in names for measure in measures]
    show("Engine", "the server alone", rows)
