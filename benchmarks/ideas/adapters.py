"""One base for many departments: 16 adapters on one model in memory, against the base alone.

32 requests run in one batch, two on each adapter; the reference sends the same requests to the
base. The adapters are LoRA of rank 8 on all linear layers with random weights, which cost as much
as trained ones. `--quick` runs fewer rounds.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import peft
import torch
import transformers

from assay_demo.data import materials
from benchmarks.engine import LLAMA, engine_rate
from benchmarks.progress import Quiet
from benchmarks.table import Row, show
from workers.engines.generation import GenerationEngine
from workers.trainers.convert import convert

NAMES = tuple(f"adapter-{number}" for number in range(16))
REQUESTS = 32
NEW_TOKENS = 32
MEGABYTE = 1024**2


def save_adapters(base: Path, folder: Path) -> None:
    """Write adapters with different random weights into folders with their names."""
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=8, target_modules="all-linear", init_lora_weights=False
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.get_peft_model(model, config, adapter_name=NAMES[0])
    for name in NAMES[1:]:
        adapted.add_adapter(name, config)
    adapted.save_pretrained(folder)


def main() -> None:
    """Load, measure memory, and measure both in turn."""
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
            alone: list[str | None] = [None] * REQUESTS
            mixed: list[str | None] = [NAMES[at % len(NAMES)] for at in range(REQUESTS)]
            took = []
            for folder in folders:
                began = time.perf_counter()
                engine.add_adapter(folder.name, folder)
                took.append((time.perf_counter() - began) * 1000)
            theirs, ours = [], []
            for number in range(rounds + 1):
                pair = (
                    engine_rate(engine, alone, NEW_TOKENS),
                    engine_rate(engine, mixed, NEW_TOKENS),
                )
                if number:  # The first round warms both up.
                    theirs.append(pair[0])
                    ours.append(pair[1])
        finally:
            engine.close()
    show(
        f"One base, {len(NAMES)} adapters",
        "without adapters",
        [
            Row.of(f"tokens/s, {REQUESTS} requests on all of them", "tokens/s", ours, theirs),
            Row.of("stored bytes of one, against its base", "MB", [stored], [weights]),
            Row.of("loading one, while the base serves", "ms", took),
        ],
    )


if __name__ == "__main__":
    main()
