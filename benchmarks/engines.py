"""Tokens per second of the engines of other projects in a worker, against the same server alone.

The subject is the worker's engine: prompts rendered and tokenized in processes of their own, a
supervised server, tokens read, decoded and counted, events to the sinks. The reference asks the
same server process over its socket for the same prompt as tokens, and only counts. Rounds take
turns. llama.cpp answers one stream from a kept GGUF, vLLM 32; vLLM takes part where
ASSAY_VLLM_PYTHON names it. The gateway's cost is measured by `./bench stack`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from assay.local import materials
from benchmarks.engine import MESSAGES, NEW_TOKENS, engine_rate
from benchmarks.progress import Quiet
from benchmarks.table import Row, show
from registry.catalog.generation import GenerationInputs
from workers.engines.servers.channel import Stream
from workers.engines.servers.engine import ServedEngine
from workers.engines.servers.llama_cpp import LlamaCppEngine
from workers.engines.servers.vllm import VllmEngine
from workers.trainers.convert import convert
from workers.trainers.kept_gguf import keep_gguf

LLAMA = ("LlamaForCausalLM",)
STREAMS = {"llama.cpp": 1, "vllm": 32}
BODIES: dict[str, dict[str, Any]] = {
    "llama.cpp": {"n_predict": NEW_TOKENS, "cache_prompt": False, "return_tokens": True},
    "vllm": {"model": "base", "max_tokens": NEW_TOKENS, "return_token_ids": True},
}


def started(name: str, folder: Path) -> ServedEngine:
    """Return the engine of that name with SmolLM2-135M; its files go to `folder`."""
    delivered = materials.fetch(names=["smollm2"])["smollm2"].parent
    threads = max(1, (os.cpu_count() or 2) - 1)
    if name == "llama.cpp":
        keep_gguf(delivered, folder, LLAMA, Quiet())
        return LlamaCppEngine(folder, architectures=LLAMA, threads=threads)
    convert(delivered, folder, LLAMA, Quiet())
    python = os.environ["ASSAY_VLLM_PYTHON"]
    return VllmEngine(folder, architectures=LLAMA, threads=threads, python=python, max_context=1024)


def alone(engine: Any, name: str) -> float:
    """Return tokens per second of the engine's server, asked directly for the same answers."""
    inputs = GenerationInputs.model_validate({"messages": MESSAGES})
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


def run(names: list[str], *, quick: bool = False) -> list[Row]:
    """Measure one engine after another."""
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="assay-bench-") as scratch:
            engine = started(name, Path(scratch) / "files")
            ours: list[float] = []
            theirs: list[float] = []
            requests = [None] * STREAMS[name]
            try:
                engine_rate(engine, [None])
                for _ in range(2 if quick else 8):
                    theirs.append(alone(engine, name))
                    ours.append(engine_rate(engine, requests))
            finally:
                engine.close()
        rows.append(Row.of(f"{name}, {STREAMS[name]} at once", "tokens/s", ours, theirs))
    return rows


if __name__ == "__main__":
    chosen = [name for name in STREAMS if name in sys.argv]
    if not chosen:
        chosen = [each for each in STREAMS if each != "vllm" or os.environ.get("ASSAY_VLLM_PYTHON")]
    show("Engine", "the server alone", run(chosen, quick="--quick" in sys.argv))
