"""One base for many departments: 16 adapters on one model in memory, against the base alone.

Each of 16 requests runs on an adapter of its own, all in one batch; the reference sends the same 16
requests to the base. The adapters are LoRA of rank 8 on all linear layers with random weights,
which cost what trained ones cost. `--quick` runs fewer rounds.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import peft
import torch
import transformers

from assay.local import materials
from benchmarks.progress import Quiet
from benchmarks.table import Row, show
from registry.catalog.generation import GenerationInputs, SamplingOptions
from workers.engines.generation import GenerationEngine
from workers.engines.protocol import EngineRequest
from workers.trainers.convert import convert
from workers.wire import Delta, Done, Event

LLAMA = ("LlamaForCausalLM",)
NAMES = tuple(f"adapter-{number}" for number in range(16))
NEW_TOKENS = 32
MEGABYTE = 1024**2


def save_adapters(base: Path, folder: Path) -> None:
    """Write adapters with different random weights into folders of their names."""
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=8, target_modules="all-linear", init_lora_weights=False
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.get_peft_model(model, config, adapter_name=NAMES[0])
    for name in NAMES[1:]:
        adapted.add_adapter(name, config)
    adapted.save_pretrained(folder)


def rate(engine: GenerationEngine, adapters: list[str | None]) -> float:
    """Return new tokens per second over one request for each of `adapters`, sent at once."""
    ended = threading.Semaphore(0)
    tokens: list[int] = []

    def sink(event: Event) -> None:
        if isinstance(event, Delta):
            return
        tokens.append(event.completion_tokens if isinstance(event, Done) else 0)
        ended.release()

    text = "Tell me a long story about a dragon, a princess and a bank."
    inputs = GenerationInputs.model_validate({"messages": [{"role": "user", "content": text}]})
    options = SamplingOptions(max_tokens=NEW_TOKENS, temperature=0.0)
    began = time.perf_counter()
    for number, adapter in enumerate(adapters):
        engine.submit(EngineRequest(f"r{number}", inputs, options, adapter), sink)
    for _ in adapters:
        ended.acquire()
    return sum(tokens) / (time.perf_counter() - began)


def main() -> None:
    """Load, measure memory, and let both take turns."""
    threads = max(1, (os.cpu_count() or 2) - 1)
    rounds = 2 if "--quick" in sys.argv else 5
    with tempfile.TemporaryDirectory(prefix="assay-ideas-") as scratch:
        base = Path(scratch) / "smollm2"
        convert(materials.fetch(names=["smollm2"])["smollm2"].parent, base, LLAMA, Quiet())
        save_adapters(base, Path(scratch))
        folders = [Path(scratch) / name for name in NAMES]
        weights = (base / "model.safetensors").stat().st_size / MEGABYTE
        stored = sum(file.stat().st_size for file in folders[0].iterdir()) / MEGABYTE
        engine = GenerationEngine(base, architectures=LLAMA, threads=threads)
        try:
            alone: list[str | None] = [None] * len(NAMES)
            mixed: list[str | None] = [folder.name for folder in folders]
            theirs = [rate(engine, alone) for _ in range(rounds + 1)][1:]
            took = []
            for folder in folders:
                began = time.perf_counter()
                engine.add_adapter(folder.name, folder)
                took.append((time.perf_counter() - began) * 1000)
            ours = [rate(engine, mixed) for _ in range(rounds + 1)][1:]
        finally:
            engine.close()
    show(
        f"One base, {len(NAMES)} adapters",
        "without adapters",
        [
            Row.of("tokens/s, each row on another adapter", "tokens/s", ours, theirs),
            Row.of("stored bytes of one, against its base", "MB", [stored], [weights]),
            Row.of("loading one, while the base serves", "ms", took),
        ],
    )


if __name__ == "__main__":
    main()
