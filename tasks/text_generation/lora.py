"""Tune a language model by LoRA (Hu et al. 2021, arXiv:2106.09685) on the answers to give."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from tasks.text_generation import TASK, LoraHyperparameters
from tasks.text_generation.conversations import (
    ConversationReader,
    Example,
    Fitted,
    collate,
    read_conversations,
)
from workers.engines.architectures import UnsupportedModel
from workers.engines.loading import load_model, load_tokenizer
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.training import (
    Reporter,
    arguments,
    fast_bfloat16,
    parse_settings,
    resume_point,
)

MIN_ROWS = 8
# Of the conversations, the part that must fit into `max_length`.
LEAST_SHARE = 0.5
MAX_VALIDATION_ROWS = 32
CHECKPOINT_STEPS = 20


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Fine-tune; delivers the adapter alone, which names no path of this machine.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Cancelled: `progress` said so.
    """
    settings = parse_settings(LoraHyperparameters, request.hyperparameters)
    seed = settings.seed
    transformers.set_seed(seed)
    model, tokenizer = _model(request.base, settings)
    rows = read_conversations(request.train_file)
    with closing(ConversationReader(tokenizer)) as reader:
        fitted = reader.examples(rows, settings.max_length)
    _require_enough(fitted, len(rows), settings.max_length, progress)
    train_set, validation_set = _split(fitted.examples, settings.validation_fraction, seed)
    progress.log(
        f"{len(train_set)} conversations to train on and {len(validation_set)} to validate on; "
        f"{model.get_nb_trainable_parameters()[0]:,} of "
        f"{model.get_nb_trainable_parameters()[1]:,} parameters are tuned."
    )
    reporter = Reporter(progress)
    trainer = _Trainer(
        reporter=reporter,
        model=model,
        args=_arguments(request, settings, seed, len(train_set)),
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=lambda examples: collate(examples, tokenizer.pad_token_id),
        callbacks=[reporter],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    before = trainer.evaluate()["eval_loss"]
    progress.log(f"Loss on the validation split before tuning: {before:.3f}.")
    trainer.train(resume_from_checkpoint=resume_point(request, progress))
    after = trainer.evaluate()["eval_loss"]
    _save(model, request.output)
    return TrainingResult(
        metrics={"validation_loss": after, "validation_loss_before": before},
        parameters={
            **settings.model_dump(),
            "train_rows": len(train_set),
            "validation_rows": len(validation_set),
            "steps": trainer.state.max_steps,
            "rows": len(rows),
            "rows_left_out": fitted.left_out,
            "rows_shortened": fitted.shortened,
        },
        notes=f"Loss on the validation split: {before:.3f} before, {after:.3f} after.",
    )


def _model(base: Path, settings: LoraHyperparameters) -> tuple[Any, Any]:
    dtype = torch.bfloat16 if fast_bfloat16() else torch.float32
    try:
        model = load_model(base, TASK.architectures, dtype=dtype)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be tuned by LoRA. {error}") from error
    if settings.max_length > model.config.max_position_embeddings:
        raise BadMaterial(
            f"max_length is {settings.max_length}; this base reads "
            f"{model.config.max_position_embeddings}."
        )
    model.config.use_cache = False
    adapter = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
    )
    return peft.get_peft_model(model, adapter), load_tokenizer(base)


def _require_enough(fitted: Fitted, rows: int, max_length: int, progress: Progress) -> None:
    """Warn of what does not fit. Raises BadMaterial when too little of the data does."""
    if rows < MIN_ROWS:
        raise BadMaterial(f"There are {rows} conversations; at least {MIN_ROWS} are needed.")
    said, kept = fitted.words(max_length), len(fitted.examples)
    if kept < max(MIN_ROWS, rows * LEAST_SHARE):
        raise BadMaterial(
            f"Only {kept} of {rows} conversations fit into max_length {max_length}; at least half "
            f"of them, and {MIN_ROWS}, must. {said} Raise max_length, or train on shorter rows."
        )
    if said:
        progress.warn(said)


def _split(
    examples: list[Example], fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    shuffled = random.Random(seed).sample(examples, len(examples))
    size = min(max(1, round(len(examples) * fraction)), MAX_VALIDATION_ROWS)
    return shuffled[size:], shuffled[:size]


def _arguments(
    request: TrainingRequest, settings: LoraHyperparameters, seed: int, rows: int
) -> transformers.TrainingArguments:
    a_step = settings.batch_size * settings.gradient_accumulation
    steps = settings.max_steps or -(-rows // a_step) * settings.epochs
    return arguments(
        request,
        seed,
        max_steps=steps,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=16,
        gradient_accumulation_steps=settings.gradient_accumulation,
        weight_decay=settings.weight_decay,
        warmup_steps=round(steps * settings.warmup_ratio),
        train_sampling_strategy="random",
        eval_strategy="no",
        save_strategy="steps",
        save_steps=CHECKPOINT_STEPS,
        label_names=["labels"],
    )


def _save(model: Any, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output)
    (output / "README.md").unlink(missing_ok=True)
    path = output / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = "base"
    # PEFT writes a set, in an order that differs from process to process, and so would the digest.
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


class _Trainer(transformers.Trainer):  # type: ignore[misc]
    """Asks about stopping before each forward pass."""

    def __init__(self, *, reporter: Reporter, **rest: Any) -> None:
        super().__init__(**rest)
        self._reporter = reporter

    def compute_loss(self, *given: Any, **rest: Any) -> Any:
        self._reporter.check()
        return super().compute_loss(*given, **rest)
