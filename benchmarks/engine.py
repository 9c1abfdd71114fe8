"""Tokens per second of the engine alone, against transformers' `generate` at the same batch.

Both have the same weights in the same process with the same number of torch threads, and take turns
in one run, so that other load on the machine affects both. The engine answers `BATCH` separate
requests; `generate` gets the whole batch at once, its best case.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from assay_demo.data import materials
from benchmarks.progress import Quiet
from benchmarks.table import Row, show
from registry.catalog.generation import GenerationInputs, SamplingOptions
from workers.engines.generation import GenerationEngine
from workers.engines.loading import load_model, load_tokenizer
from workers.engines.protocol import Engine, EngineRequest
from workers.trainers.convert import convert
from workers.wire import Delta, Done, Event

LLAMA = ("LlamaForCausalLM",)
NEW_TOKENS = 64
CONCURRENCY = (1, 8, 32)
# The answer is longer than NEW_TOKENS, so that every row gets exactly that many.
MESSAGES = [
    {"role": "user", "content": "Tell me a long story about a dragon, a princess and a bank."}
]


def engine_rate(
    engine: Engine, adapters: Sequence[str | None], new_tokens: int = NEW_TOKENS
) -> float:
    """Submit one request for each of `adapters` at once, and return new tokens per second until the
    last one ends. None means the base without an adapter.
    """
    ended = threading.Semaphore(0)
    tokens: list[int] = []

    def sink(event: Event) -> None:
        if isinstance(event, Delta):
            return
        tokens.append(event.completion_tokens if isinstance(event, Done) else 0)
        ended.release()

    inputs = GenerationInputs.model_validate({"messages": MESSAGES})
    options = SamplingOptions(max_tokens=new_tokens, temperature=0.0)
    started = time.perf_counter()
    for number, adapter in enumerate(adapters):
        engine.submit(EngineRequest(f"r{number}", inputs, options, adapter), sink)
    for _ in adapters:
        ended.acquire()
    return sum(tokens) / (time.perf_counter() - started)


def generate_rate(model: Any, tokenizer: Any, rows: int) -> float:
    """Return new tokens per second of one greedy `generate`, including encoding and decoding."""
    started = time.perf_counter()
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    prompts = torch.tensor([prompt for _ in range(rows)], device=model.device)
    with torch.inference_mode():
        generated = model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    new = generated[:, prompts.shape[1] :]
    tokenizer.batch_decode(new, skip_special_tokens=True)
    return int(new.numel()) / (time.perf_counter() - started)


def run(*, quick: bool = False) -> list[Row]:
    """Convert the model, load it twice, and measure both in turn."""
    threads = max(1, (os.cpu_count() or 2) - 1)
    rounds = 2 if quick else 5
    rows = []
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as scratch:
        folder = Path(scratch) / "smollm2"
        convert(materials.fetch(names=["smollm2"])["smollm2"].parent, folder, LLAMA, Quiet())
        engine = GenerationEngine(folder, architectures=LLAMA, threads=threads)
        tokenizer = load_tokenizer(folder)
        model = load_model(folder, LLAMA, device=engine.device)
        try:
            for requests in CONCURRENCY:
                generate_rate(model, tokenizer, requests)
                engine_rate(engine, [None] * requests)
                theirs, ours = [], []
                for _ in range(rounds):
                    theirs.append(generate_rate(model, tokenizer, requests))
                    ours.append(engine_rate(engine, [None] * requests))
                rows.append(Row.of(f"{requests} requests at once", "tokens/s", ours, theirs))
        finally:
            engine.close()
    return rows


if __name__ == "__main__":
    show("Engine alone", "generate, same batch", run(quick="--quick" in sys.argv))
