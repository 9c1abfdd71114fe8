"""Preference tuning: the likelier of two answers for a model, before and after DPO.

The answers are docstrings of the standard library. Authors write them as commands ("Return the
name."), as PEP 257 requires; the other answer describes ("Returns the name."). The recipe that jobs
run tunes a LoRA adapter on SmolLM2-135M. Pairs of unseen modules are measured. `--quick` uses a
quarter of the steps and pairs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
os.environ.setdefault("ASSAY_ENV", "test")

import django

django.setup()

import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from assay_demo.data import materials  # noqa: E402
from benchmarks.ideas.films import Rows, written  # noqa: E402
from benchmarks.progress import Quiet  # noqa: E402
from benchmarks.table import Row, show  # noqa: E402
from tasks.text_generation.conversations import ConversationReader, cut_to  # noqa: E402
from tasks.text_generation.dpo import train  # noqa: E402
from workers.trainers.convert import convert  # noqa: E402
from workers.trainers.protocol import TrainingRequest  # noqa: E402

STEPS, BATCH, MAX_LENGTH = 16, 4, 128
TEST_PAIRS = 48
MAX_PROMPT_CHARACTERS = 250
DESCRIBED = {
    "Call": "Calls", "Check": "Checks", "Close": "Closes", "Convert": "Converts",
    "Create": "Creates", "Find": "Finds", "Get": "Gets", "Make": "Makes", "Parse": "Parses",
    "Raise": "Raises", "Read": "Reads", "Remove": "Removes", "Return": "Returns", "Run": "Runs",
    "Send": "Sends", "Set": "Sets", "Write": "Writes",
}  # fmt: skip


def pairs() -> tuple[Rows, Rows]:
    """Return training and test pairs of different modules."""
    train_rows, test_rows = materials.docstring_pairs(limit=5_000, heldout_limit=1_000)
    return _paired(train_rows), _paired(test_rows)


def _paired(rows: list[materials.ChatRow]) -> Rows:
    pairs_of_answers = []
    for row in rows:
        question, answer = (each["content"] for each in row["messages"])
        verb, _, rest = answer.partition(" ")
        if verb in DESCRIBED and len(question) <= MAX_PROMPT_CHARACTERS:
            described = f"{DESCRIBED[verb]} {rest}"
            pairs_of_answers.append({"prompt": question, "chosen": answer, "rejected": described})
    return pairs_of_answers


def preferred(model: Any, tokenizer: Any, rows: Rows) -> float:
    """Return the share of pairs whose chosen answer has the higher total likelihood."""
    reader = ConversationReader(tokenizer)
    try:
        wins = [
            _likelihood(model, reader, row, "chosen") > _likelihood(model, reader, row, "rejected")
            for row in rows
        ]
    finally:
        reader.close()
    return sum(wins) / len(wins)


def _likelihood(model: Any, reader: ConversationReader, row: dict[str, Any], kind: str) -> float:
    question = {"role": "user", "content": row["prompt"]}
    answer = {"role": "assistant", "content": row[kind]}
    example = cut_to(reader.whole({"messages": [question, answer]}), 512)
    assert example is not None  # noqa: S101 (the prompts are short)
    tokens = torch.tensor([example.tokens])
    with torch.inference_mode():
        chances = model(tokens).logits[0, :-1].float().log_softmax(-1)
    answer_chances = chances.gather(1, tokens[0, 1:, None])[example.start - 1 :]
    return float(answer_chances.sum())


def main() -> None:
    """Tune, and print the share of preferred answers before and after."""
    share = 4 if "--quick" in sys.argv else 1
    train_rows, test_rows = pairs()
    steps, test_rows = STEPS // share, test_rows[: TEST_PAIRS // share]
    with tempfile.TemporaryDirectory(prefix="assay-ideas-") as scratch:
        folder = Path(scratch)
        base, output = folder / "base", folder / "version"
        smollm2 = materials.fetch(names=["smollm2"])["smollm2"].parent
        convert(smollm2, base, ("LlamaForCausalLM",), Quiet())
        output.mkdir()
        data = written(train_rows[: steps * BATCH + 16], folder / "pairs.jsonl")
        settings = {
            "max_steps": steps, "batch_size": BATCH, "max_length": MAX_LENGTH,
            "learning_rate": 2e-4, "validation_fraction": 0.1,
        }  # fmt: skip
        request = TrainingRequest(
            "text-generation", "dpo", base, data, output, folder / "checkpoints", settings
        )
        began = time.process_time()
        train(request, Quiet())
        seconds = time.process_time() - began
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base).eval()
        before = preferred(model, tokenizer, test_rows)
        after = preferred(PeftModel.from_pretrained(model, output).eval(), tokenizer, test_rows)
    show(
        f"DPO on SmolLM2-135M, {steps} steps of {BATCH} pairs; {len(test_rows)} others measured",
        "the base",
        [
            Row.of("preferred answer likelier", "", [after], [before]),
            Row.of("training, CPU", "s", [seconds]),
        ],
    )


if __name__ == "__main__":
    main()
