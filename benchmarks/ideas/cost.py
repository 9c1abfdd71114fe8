"""Savings of an adapter (LoRA) for a department, against tuning all weights of the base.

The recipe of the docstring writer runs with the rows and settings of the demo. The reference tunes
every weight on the same batches with transformers' Trainer. Each runs in a separate process and
reports its processor time and its peak memory. `--quick` runs a quarter of the steps.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
os.environ.setdefault("ASSAY_ENV", "test")

import django

django.setup()

from assay_demo.data import materials  # noqa: E402
from benchmarks.ideas.films import written  # noqa: E402
from benchmarks.progress import Quiet  # noqa: E402
from benchmarks.table import Row, show  # noqa: E402
from workers.trainers.convert import convert  # noqa: E402

LLAMA = ("LlamaForCausalLM",)
STEPS, BATCH, MAX_LENGTH = 16, 4, 192
MEGABYTE = 1024**2


def main() -> None:
    """Run both in turn, and print time, memory and stored bytes."""
    steps = STEPS // 4 if "--quick" in sys.argv else STEPS
    with tempfile.TemporaryDirectory(prefix="assay-ideas-") as scratch:
        base = Path(scratch) / "base"
        convert(materials.fetch(names=["smollm2"])["smollm2"].parent, base, LLAMA, Quiet())
        adapter, full = (measured(kind, steps, base) for kind in ("adapter", "full"))
    show(
        f"Cost of {steps} steps of {BATCH} docstrings on SmolLM2-135M",
        "all weights",
        [
            Row.of(name, unit, [adapter[key]], [full[key]])
            for key, name, unit in (
                ("cpu_s", "training, CPU", "s"),
                ("memory_mb", "largest memory", "MB"),
                ("stored_mb", "stored for the department", "MB"),
            )
        ],
    )


def measured(kind: str, steps: int, base: Path) -> dict[str, float]:
    """Tune in a separate process, and return its report."""
    command = [sys.executable, "-m", "benchmarks.ideas.cost", kind, str(steps), str(base)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def tune(kind: str, steps: int, base: Path) -> dict[str, float]:
    """Tune the adapter or all weights; return CPU seconds, and memory and stored bytes in MB."""
    with tempfile.TemporaryDirectory(prefix="assay-ideas-") as scratch:
        folder = Path(scratch)
        rows, _ = materials.docstring_pairs(limit=200)
        data = written(list(rows), folder / "rows.jsonl")
        output = folder / "version"
        output.mkdir()
        began = time.process_time()
        {"adapter": tune_adapter, "full": tune_all}[kind](base, data, output, steps)
        return {
            "cpu_s": time.process_time() - began,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "stored_mb": sum(file.stat().st_size for file in output.iterdir()) / MEGABYTE,
        }


def tune_adapter(base: Path, data: Path, output: Path, steps: int) -> None:
    """Run the recipe that jobs run."""
    from tasks.text_generation.lora import train
    from workers.trainers.protocol import TrainingRequest

    settings: dict[str, Any] = {
        "max_steps": steps, "batch_size": BATCH, "max_length": MAX_LENGTH,
        "learning_rate": 5e-4, "lora_dropout": 0.0,
    }  # fmt: skip
    checkpoints = output.parent / "checkpoints"
    request = TrainingRequest("text-generation", "lora", base, data, output, checkpoints, settings)
    train(request, Quiet())


def tune_all(base: Path, data: Path, output: Path, steps: int) -> None:
    """Tune every weight on the same examples."""
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    from tasks.text_generation.conversations import ConversationReader, read_conversations

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    reader = ConversationReader(tokenizer)
    try:
        fitted = reader.examples(read_conversations(data), MAX_LENGTH)
    finally:
        reader.close()
    arguments = TrainingArguments(
        str(output.parent / "trainer"), max_steps=steps, per_device_train_batch_size=BATCH,
        learning_rate=5e-5, save_strategy="no", report_to=[], disable_tqdm=True,
        logging_strategy="no",
    )  # fmt: skip
    Trainer(
        model=model,
        args=arguments,
        train_dataset=[example.learned() for example in fitted.examples],
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
    ).train()
    model.save_pretrained(output)


if __name__ == "__main__":
    if sys.argv[1:2] in (["adapter"], ["full"]):
        print(json.dumps(tune(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201
    else:
        main()
